"""Tracks which backend holds the rows of each user, and migrates them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from shopassist.consent.models import ConsentNotice
from shopassist.db.resilience import limit_time
from shopassist.errors import StorageUnavailableError
from shopassist.rollout.assignment import Assignment, Side
from shopassist.rollout.backends import Backend, MirrorRows, Rows

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class RolloutCounters:
    """Moves by the side they went to, moves that did not succeed, and what comparing came to.

    `asked` are operations by side; `differences` answers of the two sides that were not the same, by operation;
    `shadow_failures` questions that the other side did not answer.
    """

    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    move_failures: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    shadow_failures: int = 0


MOVE_SECONDS, SECONDS_PER_ROW = 1.0, 0.0003
"""How long a move may take; whoever asked meanwhile is served where they are."""

READ_SECONDS = 4.0
"""How long reading somebody's state may take, however much there is of it."""

RETRY_PAUSE_SECONDS = 5.0
"""After a move to PostgreSQL that failed, nobody else is kept waiting for one for so long."""


class UnmovableError(StorageUnavailableError):
    """Somebody's state cannot be moved, for a reason of its own: whoever else is to move can."""


def get_move_seconds(rows: Rows) -> float:
    """How long it may take to move those rows."""
    return MOVE_SECONDS + SECONDS_PER_ROW * sum(map(len, rows.values()))


class UserPlacement:
    """Knows who is where. Who calls its coroutines about somebody has their lock."""

    def __init__(
        self,
        dial: Assignment,
        memory: Backend,
        mirror: Backend,
        postgres: Backend,
        copies: tuple[MirrorRows, MirrorRows],
    ) -> None:
        """`copies` are the states of `memory` and of `mirror`."""
        self.dial = dial
        self.memory, self.mirror, self.postgres = memory, mirror, postgres
        self.figures = RolloutCounters()
        self.in_postgres: set[str] = set()
        self.unmirrored: dict[str, datetime] = {}
        """Whose last change in PostgreSQL the mirror may lack, and since when."""
        self.shadowed: set[str] = set()
        """Who is in memory with an exact copy in PostgreSQL."""
        self.pinned: Counter[str] = Counter()
        """Who is being erased, which happens in PostgreSQL."""
        self.in_memory, self._mirrored = copies
        self._no_moves_until = 0.0

    def side_of(self, user_id: str) -> Side:
        """Where somebody is."""
        return Side.POSTGRES if user_id in self.in_postgres else Side.MEMORY

    def place_of(self, user_id: str) -> Backend:
        """The ports of where somebody is."""
        return self.postgres if user_id in self.in_postgres else self.memory

    async def settle(self, user_ids: Sequence[str], wanted: Side | None = None) -> Backend:
        """Move those people to where the dial wants the last of them; one who cannot be moved stays.

        Raises `StorageUnavailableError` when they cannot be brought together, or to where they are `wanted`.
        """
        to = wanted or self.dial.wanted(user_ids[-1])
        try:
            for user_id in user_ids:
                await self.move(user_id, to)
        except StorageUnavailableError:
            if wanted or len({self.side_of(user_id) for user_id in user_ids}) > 1:
                raise
        return self.place_of(user_ids[-1])

    async def move(self, user_id: str, to: Side) -> bool:
        """Let somebody's state be on the side `to` and nowhere else count; whether there was anything to move.

        Raises `StorageUnavailableError` when PostgreSQL is away, as `UnmovableError` when it does not take this state.
        """
        if self.side_of(user_id) is to or self.pinned[user_id]:
            return False
        try:
            rows = await (self._up(user_id) if to is Side.POSTGRES else self._down(user_id))
        except Exception as error:
            self.figures.move_failures[to] += 1
            if isinstance(error, StorageUnavailableError):
                raise
            logger.warning("not_moved", side=to, error=type(error).__name__)
            raise UnmovableError from error
        self.shadowed.discard(user_id)
        self.figures.moved[to] += bool(rows)
        return bool(rows)

    async def mirror_again(self, user_id: str) -> None:
        """Bring the mirror up to what PostgreSQL has of somebody, or note that it may lack something."""
        try:
            rows = (await self.postgres.state.read([user_id])).get(user_id, {})
        except Exception as error:  # noqa: BLE001 - whatever it was, the copy may be old
            self.unmirrored.setdefault(user_id, datetime.now(UTC))
            logger.warning("not_mirrored", error=type(error).__name__)
        else:
            await self._mirrored.replace(user_id, rows)
            self.unmirrored.pop(user_id, None)

    async def shadow_again(self, user_id: str) -> None:
        """Bring PostgreSQL up to what memory has of somebody who stays there. Raises `StorageUnavailableError`."""
        self.shadowed.discard(user_id)
        rows = (await self.memory.state.read([user_id])).get(user_id, {})
        with limit_time(get_move_seconds(rows)):
            await self.postgres.state.write(user_id, rows)
        self.shadowed.add(user_id)

    async def know_erased(self, subject_hash: str | None = None) -> None:
        """Let memory know what PostgreSQL knows of those who were erased. Raises `StorageUnavailableError`."""
        erased = await self.postgres.state.erased(subject_hash)
        await self.in_memory.learn(erased)
        await self._mirrored.learn(erased)

    async def keepers(self, user_id: str) -> list[str]:
        """Administrators of whom answers are kept that are about somebody, wherever they are."""
        return [*await self.in_memory.keepers(user_id), *await self._mirrored.keepers(user_id)]

    async def disown(self, user_id: str) -> None:
        """Somebody was erased in PostgreSQL: nothing here may name them any more."""
        await self.in_memory.disown(user_id)
        await self._mirrored.disown(user_id)

    async def send_acts(self) -> None:
        """Let PostgreSQL have what administrators did to people in memory. Raises `StorageUnavailableError`."""
        if acts := await self.in_memory.acts():
            await self.in_memory.drop_acts(acts)
            try:
                await self.postgres.state.note_acts(acts)
            except BaseException:
                await self.in_memory.note_acts(acts)
                raise

    async def know_notices(self, notices: Sequence[ConsentNotice]) -> None:
        """Let memory and mirror have these texts."""
        await self.in_memory.know_notices(notices)
        await self._mirrored.know_notices(notices)

    async def begin_with(self, user_id: str, rows: Rows) -> None:
        """Somebody is in PostgreSQL since before this process was."""
        await self._mirrored.replace(user_id, rows)
        self.in_postgres.add(user_id)

    def is_mirrored(self, account: object) -> bool:
        """Whether the mirror has an account just like that."""
        user_id = getattr(account, "user_id", "")
        names = ("available_credits", "held_credits", "max_credits", "is_guest", "last_reset_timestamp")
        kept = self._mirrored.account(user_id)
        return kept is not None and all(getattr(kept, name) == getattr(account, name, None) for name in names)

    async def _up(self, user_id: str) -> Rows:
        rows = (await self.memory.state.read([user_id])).get(user_id, {})
        if rows:
            if time.monotonic() < self._no_moves_until:
                raise StorageUnavailableError
            try:
                with limit_time(get_move_seconds(rows)):
                    await self.postgres.state.write(user_id, rows)
            except StorageUnavailableError:
                self._no_moves_until = time.monotonic() + RETRY_PAUSE_SECONDS
                raise
            await self._mirrored.replace(user_id, rows)
            await self.in_memory.take_away(user_id)
        self.unmirrored.pop(user_id, None)  # what memory had counts
        self.in_postgres.add(user_id)
        return rows

    async def _down(self, user_id: str) -> Rows:
        rows = await self._in_postgres(user_id)
        mirrored = await self._mirrored.take_away(user_id)
        rows = mirrored if rows is None else rows
        await self.in_memory.replace(user_id, rows)
        self.in_postgres.discard(user_id)
        if not self.dial.is_back:
            self.unmirrored.pop(user_id, None)
        return rows

    async def _in_postgres(self, user_id: str) -> Rows | None:
        """What PostgreSQL has of somebody; None when all went back or it is gone, and what the mirror has counts.

        Raises `StorageUnavailableError` when the mirror may lack something and there is time to wait.
        """
        if self.dial.is_back:
            return None
        try:
            with limit_time(READ_SECONDS):
                return (await self.postgres.state.read([user_id])).get(user_id, {})
        except StorageUnavailableError:
            if user_id in self.unmirrored:
                raise
            return None
