"""Opens connections to the right server of a DSN with several hosts, and follows failovers."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import asyncpg
import structlog
from sqlalchemy import URL

from shopassist.db.dsn import Host, build_driver_dsn, get_hosts
from shopassist.db.failures import NotSentError

logger = structlog.get_logger(__name__)

HEAD_START_SECONDS = 0.15
"""How long only the last right server is asked."""

SETTLING_SECONDS = 0.3
"""How long a writable server waits for another one to answer that it is writable too."""

TIMELINE_QUERY = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
IN_RECOVERY_QUERY = "SELECT pg_is_in_recovery()"

WRITABLE_TARGETS = ("read-write", "primary")
CONNECTION_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

Attempts: TypeAlias = dict[asyncio.Task[asyncpg.Connection], int]
"""Connection attempts and the numbers of their hosts."""


class HostSelector:
    """Opens connections to the server of a DSN that meets its `target_session_attrs`.

    asyncpg tries hosts one after another, and each silent host costs its whole time limit, which is longer than a
    request may take. This class asks the last right server first, and soon after that all others concurrently.
    """

    def __init__(self, url: URL) -> None:
        """`url` must be normalised."""
        self.hosts = get_hosts(url)
        self._dsn = build_driver_dsn(url)
        self._target = str(url.query.get("target_session_attrs", "any"))
        self._last: int | None = None

    @property
    def has_several_hosts(self) -> bool:
        """Return whether there is another server to try."""
        return len(self.hosts) > 1

    @property
    def current(self) -> Host | None:
        """Return the server of the newest connection."""
        return None if self._last is None else self.hosts[self._last]

    def forget(self) -> None:
        """Treat all servers alike at the next connection."""
        if self.has_several_hosts:
            self._last = None

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """Open a connection; `options` are asyncpg's. Raises asyncpg's errors, and `NotSentError` if no server fits."""
        if self.has_several_hosts:
            return await self._race(options)
        connection = await self._open(0, options)
        if self._target != "prefer-standby" and not await self._meets_target(connection):
            connection.terminate()
            raise NotSentError
        self._last = 0
        return connection

    async def _race(self, options: dict[str, Any]) -> asyncpg.Connection:
        attempts: Attempts = {}
        chosen = None
        try:
            if self._last is not None:
                attempts[asyncio.create_task(self._open(self._last, options))] = self._last
                await asyncio.wait(attempts, timeout=HEAD_START_SECONDS)
                chosen = await self._choose(attempts)
            if chosen is None:
                for number in range(len(self.hosts)):
                    if number not in attempts.values():
                        attempts[asyncio.create_task(self._open(number, options))] = number
                chosen = await self._wait_and_choose(attempts)
            self._set_current(attempts[chosen])
            return chosen.result()
        finally:
            for task in attempts:
                if task is not chosen:
                    _discard_connection(task)

    async def _wait_and_choose(self, attempts: Attempts) -> asyncio.Task[asyncpg.Connection]:
        waiting = set(attempts)
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            chosen = await self._choose(attempts)
            if chosen is not None and waiting and self._target in WRITABLE_TARGETS:
                await asyncio.wait(waiting, timeout=SETTLING_SECONDS)
                chosen = await self._choose(attempts)
            if chosen is not None:
                return chosen
        if self._target == "prefer-standby":
            for task in attempts:
                if not task.exception():
                    return task
        raise _choose_error([error for task in attempts if isinstance(error := task.exception(), Exception)])

    async def _choose(self, attempts: Attempts) -> asyncio.Task[asyncpg.Connection] | None:
        """Return the connection that meets the target, of those that are open.

        Of two writable servers choose the one on the newer timeline: an old primary that restarts after a failover
        does not know that it has been replaced.
        """
        opened = [task for task in attempts if task.done() and not task.exception()]
        found = [task for task in opened if await self._meets_target(task.result())]
        if len(found) > 1 and self._target in WRITABLE_TARGETS:
            timelines = {task: await _fetch_timeline(task.result()) for task in found}
            return max(found, key=timelines.__getitem__)
        return found[0] if found else None

    async def _open(self, number: int, options: dict[str, Any]) -> asyncpg.Connection:
        host = self.hosts[number]
        return await asyncpg.connect(
            dsn=self._dsn, host=host.name, port=host.port, target_session_attrs="any", **options
        )

    async def _meets_target(self, connection: asyncpg.Connection) -> bool:
        if self._target == "any":
            return True
        settings = connection.get_settings()
        in_recovery = getattr(settings, "in_hot_standby", None)  # reported since PostgreSQL 14
        with suppress(*CONNECTION_ERRORS):
            if in_recovery is None:
                in_recovery = "on" if await connection.fetchval(IN_RECOVERY_QUERY) else "off"
            read_only = "on" in {in_recovery, getattr(settings, "default_transaction_read_only", "off")}
            return {
                "read-write": not read_only,
                "read-only": read_only,
                "primary": in_recovery == "off",
            }.get(self._target, in_recovery == "on")
        return False

    def _set_current(self, number: int) -> None:
        if number != self._last:
            self._last = number
            host = self.hosts[number]
            logger.info("database_server", host=host.name, port=host.port)


def _discard_connection(task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.done():
        task.cancel()
        task.add_done_callback(_discard_connection)
    elif not task.cancelled() and not task.exception():
        task.result().terminate()


async def _fetch_timeline(connection: asyncpg.Connection) -> int:
    """Return the server's timeline, which each promotion increases."""
    with suppress(*CONNECTION_ERRORS):
        return int(await connection.fetchval(TIMELINE_QUERY))
    return 0


def _choose_error(errors: Sequence[Exception]) -> Exception:
    """Prefer a server's refusal to a network error, because it says more."""
    for kind in (asyncpg.PostgresError, OSError, Exception):
        for error in errors:
            if isinstance(error, kind):
                return error
    return NotSentError()
