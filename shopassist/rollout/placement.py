"""Maps each user to a storage and migrates their rows."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import structlog

from shopassist.db.resilience import limit_time
from shopassist.errors import StorageUnavailableError
from shopassist.rollout.memory import MemoryUserRows
from shopassist.rollout.models import Assignment, Rows
from shopassist.rollout.postgres import PostgresUserRows
from shopassist.settings import Storage

logger = structlog.get_logger(__name__)

MIGRATION_SECONDS, SECONDS_PER_ROW = 1.0, 0.0003
"""Time limit of a migration, during which calls about the user wait."""

READ_SECONDS = 4.0
"""Time limit of reading the rows of a user."""

RETRY_PAUSE_SECONDS = 5.0
"""After a failed migration to PostgreSQL no call waits for another one for so long."""

ACCOUNT_FIELDS = ("available_credits", "held_credits", "max_credits", "is_guest", "last_reset_timestamp")

StoredRows = TypeVar("StoredRows", MemoryUserRows, PostgresUserRows)


@dataclass(frozen=True, slots=True)
class Backend(Generic[StoredRows]):
    """A storage container, and the rows of its users."""

    storage: Any
    rows: StoredRows

    def get(self, port: str) -> Any:
        """Return the port of that name."""
        return getattr(self.storage, port)()


AnyBackend = Backend[MemoryUserRows] | Backend[PostgresUserRows]


@dataclass(slots=True)
class RolloutCounters:
    """Calls and migrations by storage, and comparisons by operation.

    `differences` are results of the two storages that were not equal; `shadow_failures` are repeated calls that the
    other storage did not answer.
    """

    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    move_failures: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    shadow_failures: int = 0


class UnmovableError(StorageUnavailableError):
    """PostgreSQL does not accept the rows of one user; other users can be migrated."""


def limit_migration(rows: Rows) -> Any:
    """Limit the time of migrating those rows."""
    return limit_time(MIGRATION_SECONDS + SECONDS_PER_ROW * sum(map(len, rows.values())))


class UserPlacement:
    """Maps each user to a storage. Callers of its coroutines about a user hold that user's lock."""

    def __init__(
        self,
        assignment: Assignment,
        memory: Backend[MemoryUserRows],
        mirror: Backend[MemoryUserRows],
        postgres: Backend[PostgresUserRows],
    ) -> None:
        """`mirror` holds copies in memory of the rows of users in PostgreSQL."""
        self.assignment = assignment
        self.memory, self.mirror, self.postgres = memory, mirror, postgres
        self.counters = RolloutCounters()
        self.in_postgres: set[str] = set()
        self.unmirrored: dict[str, datetime] = {}
        """Users with a last change in PostgreSQL that the mirror may lack, and since when."""
        self.shadowed: set[str] = set()
        """Users in memory with an exact copy in PostgreSQL."""
        self.pinned: Counter[str] = Counter()
        """Users who stay in PostgreSQL until an erasure has finished."""
        self.erasures: dict[UUID, tuple[str, ...]] = {}
        """Unfinished erasures and the users pinned by them; the last one is erased."""
        self._no_migration_until = 0.0

    def get_storage(self, user_id: str) -> Storage:
        """Return where the rows of a user are."""
        return Storage.POSTGRES if user_id in self.in_postgres else Storage.MEMORY

    def get_backend(self, user_id: str) -> AnyBackend:
        """Return the storage that holds the rows of a user."""
        return self.postgres if user_id in self.in_postgres else self.memory

    async def place_users(self, user_ids: Sequence[str], to: Storage | None = None) -> AnyBackend:
        """Migrate users to one storage and return it: `to`, or the assigned one of the last user.

        A user who cannot be migrated stays. Raises `StorageUnavailableError` when the users are not together then, or
        not where `to` says.
        """
        target = to or self.assignment.get_storage(user_ids[-1])
        try:
            for user_id in user_ids:
                await self.migrate(user_id, target)
        except StorageUnavailableError:
            if to or len({self.get_storage(user_id) for user_id in user_ids}) > 1:
                raise
        return self.get_backend(user_ids[-1])

    async def migrate(self, user_id: str, to: Storage) -> None:
        """Migrate the rows of a user, unless they are there or pinned.

        Raises `StorageUnavailableError` when PostgreSQL is unavailable, and `UnmovableError` when it refuses the rows.
        """
        if self.get_storage(user_id) is to or self.pinned[user_id]:
            return
        try:
            rows = await (self._to_postgres(user_id) if to is Storage.POSTGRES else self._to_memory(user_id))
        except Exception as error:
            self.counters.move_failures[to] += 1
            if isinstance(error, StorageUnavailableError):
                raise
            logger.warning("not_moved", side=to, error=type(error).__name__)
            raise UnmovableError from error
        self.shadowed.discard(user_id)
        self.counters.moved[to] += bool(rows)

    async def refresh_mirror(self, user_id: str) -> None:
        """Copy the rows of a user in PostgreSQL to the mirror, or record that the mirror may lack a change."""
        try:
            rows = (await self.postgres.rows.read([user_id])).get(user_id, {})
        except Exception as error:  # noqa: BLE001 - after any failure the copy may be outdated
            self.unmirrored.setdefault(user_id, datetime.now(UTC))
            logger.warning("not_mirrored", error=type(error).__name__)
        else:
            await self.mirror.rows.write(user_id, rows)
            self.unmirrored.pop(user_id, None)

    async def refresh_shadow(self, user_id: str) -> None:
        """Copy the rows of a user in memory to PostgreSQL. Raises `StorageUnavailableError`."""
        self.shadowed.discard(user_id)
        rows = (await self.memory.rows.read([user_id])).get(user_id, {})
        with limit_migration(rows):
            await self.postgres.rows.write(user_id, rows)
        self.shadowed.add(user_id)

    async def adopt(self, user_id: str, rows: Rows) -> None:
        """Record a user with rows that were in PostgreSQL when this process started."""
        await self.mirror.rows.write(user_id, rows)
        self.in_postgres.add(user_id)

    async def sync_erasures(self, subject_hash: str | None = None) -> None:
        """Copy erasures from PostgreSQL to memory. Raises `StorageUnavailableError`."""
        erasures = await self.postgres.rows.read_erasures(subject_hash)
        for backend in (self.memory, self.mirror):
            await backend.rows.apply_erasures(erasures)

    def list_admins_mentioning(self, user_id: str) -> list[str]:
        """Return the administrators with stored idempotent responses about a user."""
        return [*self.memory.rows.list_admins_mentioning(user_id), *self.mirror.rows.list_admins_mentioning(user_id)]

    async def release_erased(self, user_ids: Sequence[str]) -> None:
        """Unpin the users of a finished erasure and remove what memory has of the last one, who was erased."""
        self.pinned.subtract(user_ids)
        for user_id in user_ids:
            await self.refresh_mirror(user_id)
        for backend in (self.memory, self.mirror):
            for user_id in user_ids[-1:]:
                await backend.rows.anonymise_merges(user_id)

    async def flush_audit_entries(self) -> None:
        """Move audit entries from memory to PostgreSQL. Raises `StorageUnavailableError`."""
        if entries := self.memory.rows.pop_audit_entries():
            try:
                await self.postgres.rows.insert_audit_entries(entries)
            except BaseException:
                self.memory.rows.restore_audit_entries(entries)
                raise

    async def copy_notices(self) -> None:
        """Copy new notices from PostgreSQL to memory and mirror. Raises `StorageUnavailableError`."""
        unit_of_work = self.postgres.get("unit_of_work")
        published = await unit_of_work.run(lambda work: work.notices.list_published(), repeatable=True)
        known = {notice.id for notice in await self.memory.get("consent_lookup").list_published()}
        if new := [notice.id for notice in published if notice.id not in known]:
            texts = await unit_of_work.run(lambda work: work.notices.get_notices(new), repeatable=True)
            for backend in (self.memory, self.mirror):
                await backend.rows.add_notices(texts)

    def is_mirrored(self, account: object) -> bool:
        """Return whether the mirror has an equal account."""
        mirrored = self.mirror.rows.get_account(getattr(account, "user_id", ""))
        return mirrored is not None and all(
            getattr(mirrored, name) == getattr(account, name, None) for name in ACCOUNT_FIELDS
        )

    async def _to_postgres(self, user_id: str) -> Rows:
        rows = (await self.memory.rows.read([user_id])).get(user_id, {})
        if rows:
            if time.monotonic() < self._no_migration_until:
                raise StorageUnavailableError
            try:
                with limit_migration(rows):
                    await self.postgres.rows.write(user_id, rows)
            except StorageUnavailableError:
                self._no_migration_until = time.monotonic() + RETRY_PAUSE_SECONDS
                raise
            await self.mirror.rows.write(user_id, rows)
            await self.memory.rows.pop(user_id)
        self.unmirrored.pop(user_id, None)  # the rows in memory replaced those in PostgreSQL
        self.in_postgres.add(user_id)
        return rows

    async def _to_memory(self, user_id: str) -> Rows:
        rows = await self._read_postgres(user_id)
        mirrored = await self.mirror.rows.pop(user_id)
        rows = mirrored if rows is None else rows
        await self.memory.rows.write(user_id, rows)
        self.in_postgres.discard(user_id)
        if not self.assignment.is_back:
            self.unmirrored.pop(user_id, None)
        return rows

    async def _read_postgres(self, user_id: str) -> Rows | None:
        """Return the rows in PostgreSQL, or None when the mirror's are to be used.

        Raises `StorageUnavailableError` when the mirror may lack a change and there is time to wait.
        """
        if self.assignment.is_back:
            return None
        try:
            with limit_time(READ_SECONDS):
                return (await self.postgres.rows.read([user_id])).get(user_id, {})
        except StorageUnavailableError:
            if user_id in self.unmirrored:
                raise
            return None
