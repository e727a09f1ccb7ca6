"""Opens connections to the right server of a DSN with several hosts, and follows failovers."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
import structlog
from sqlalchemy import URL

from shopassist.db.dsn import Host, build_driver_dsn, get_hosts
from shopassist.db.failures import NotSentError

logger = structlog.get_logger(__name__)

HEAD_START_SECONDS = 0.15
"""How long the server that was right the last time is asked alone."""

SETTLING_SECONDS = 0.3
"""How long one that may be written to waits for another to say that it may be, too."""

TIMELINE_QUERY = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
IN_RECOVERY_QUERY = "SELECT pg_is_in_recovery()"

WRITABLE_TARGETS = ("read-write", "primary")


def _discard_connection(task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.done():
        task.cancel()
        task.add_done_callback(_discard_connection)
    elif not task.cancelled() and not task.exception():
        task.result().terminate()


class HostSelector:
    """Opens connections to the server of a link that is as the link wants it.

    asyncpg asks hosts one after another, and each that does not answer costs its whole time limit, which is longer than
    a request lives. Here the last that was right is asked first, and soon after all others beside it.
    """

    def __init__(self, url: URL) -> None:
        """`url` is normalised."""
        self.hosts = get_hosts(url)
        self._link = build_driver_dsn(url)
        self._wanted = str(url.query.get("target_session_attrs", "any"))
        self._last: int | None = None

    @property
    def are_several(self) -> bool:
        """Whether there is another to turn to."""
        return len(self.hosts) > 1

    @property
    def current(self) -> Host | None:
        """The one that the newest connection is to."""
        return None if self._last is None else self.hosts[self._last]

    def forget(self) -> None:
        """The one that was right is not any more, so that all are asked alike."""
        if self.are_several:
            self._last = None

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """A connection; `options` are asyncpg's. Raises what asyncpg raises, and `NotSentError` when none is right."""
        if not self.are_several:
            connection = await self._opened(self.hosts[0], options)
            if self._wanted != "prefer-standby" and not await self._suits(connection):
                connection.terminate()
                raise NotSentError
            self._last = 0
            return connection
        return await self._raced(options)

    async def _raced(self, options: dict[str, Any]) -> asyncpg.Connection:
        tasks: dict[asyncio.Task[asyncpg.Connection], int] = {}

        def begin(numbers: Iterable[int]) -> None:
            for number in numbers:
                tasks[asyncio.create_task(self._opened(self.hosts[number], options))] = number

        chosen = None
        try:
            first = self._last
            if first is not None:
                begin([first])
                await asyncio.wait(tasks, timeout=HEAD_START_SECONDS)
                chosen = await self._chosen(tasks)
            if chosen is None:
                begin(number for number in range(len(self.hosts)) if number != first)
                chosen = await self._chosen_of_all(tasks)
            self._note(tasks[chosen])
            return chosen.result()
        finally:
            for task in tasks:
                if task is not chosen:
                    _discard_connection(task)

    async def _chosen_of_all(self, tasks: dict[asyncio.Task[asyncpg.Connection], int]) -> asyncio.Task[Any]:
        waiting: set[asyncio.Task[Any]] = set(tasks)
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            chosen = await self._chosen(tasks)
            if chosen is None:
                continue
            if waiting and self._wanted in WRITABLE_TARGETS:
                await asyncio.wait(waiting, timeout=SETTLING_SECONDS)
                chosen = await self._chosen(tasks)
            if chosen is not None:
                return chosen
        if self._wanted == "prefer-standby":
            for task in tasks:
                if not task.exception():
                    return task
        raise _choose_error([error for task in tasks if isinstance(error := task.exception(), Exception)])

    async def _chosen(self, tasks: dict[asyncio.Task[asyncpg.Connection], int]) -> asyncio.Task[Any] | None:
        """Of those that have answered the one that is wanted.

        Of two that may be written to it is the one on the newer timeline: a server that came back after another took
        its place does not know that it is no longer the primary.
        """
        there = [task for task in tasks if task.done() and not task.exception()]
        found = [task for task in there if await self._suits(task.result())]
        if len(found) > 1 and self._wanted in WRITABLE_TARGETS:
            timelines = {task: await _fetch_timeline(task.result()) for task in found}
            return max(found, key=timelines.__getitem__)
        return found[0] if found else None

    async def _opened(self, host: Host, options: dict[str, Any]) -> asyncpg.Connection:
        return await asyncpg.connect(
            dsn=self._link, host=host.name, port=host.port, target_session_attrs="any", **options
        )

    async def _suits(self, connection: asyncpg.Connection) -> bool:
        if self._wanted == "any":
            return True
        settings = connection.get_settings()
        in_recovery = getattr(settings, "in_hot_standby", None)  # told by servers since PostgreSQL 14
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if in_recovery is None:
                in_recovery = "on" if await connection.fetchval(IN_RECOVERY_QUERY) else "off"
            read_only = "on" in {in_recovery, getattr(settings, "default_transaction_read_only", "off")}
            return {
                "read-write": not read_only,
                "read-only": read_only,
                "primary": in_recovery == "off",
            }.get(self._wanted, in_recovery == "on")
        return False

    def _note(self, number: int) -> None:
        if number != self._last:
            self._last = number
            host = self.hosts[number]
            logger.info("database_server", host=host.name, port=host.port)


async def _fetch_timeline(connection: asyncpg.Connection) -> int:
    """How often there has been a promotion in this server's past."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return int(await connection.fetchval(TIMELINE_QUERY))
    return 0


def _choose_error(errors: Sequence[Exception]) -> Exception:
    """Why none is right: what a server said of us tells more than that another did not answer."""
    for kind in (asyncpg.PostgresError, OSError, Exception):
        for error in errors:
            if isinstance(error, kind):
                return error
    return NotSentError()
