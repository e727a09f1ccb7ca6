"""Vacuuming tables whose figures call for it: what autovacuum has not come to.

Autovacuum stays the main thing, and acts at lower figures than these (by default 20 % of dead rows and 10 % of changed
ones). This is for where it is behind, was switched off, or waits for a fifth of a table that has become large.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
from sqlalchemy import URL

from shopassist.db.links import normalised
from shopassist.db.postgres.ddl import run
from shopassist.db.resilience.failures import translated
from shopassist.db.servers import Servers
from shopassist.db.tls import secured
from shopassist.models.maintenance import Work
from shopassist.settings import DatabaseConfig, PoolMode

LEAST_ROWS = 10_000
"""Below so many rows dead or changed a table is small or fit: reading past them costs less than a vacuum."""

DEAD_SHARE = 0.3
"""Of all rows: half more than where autovacuum would have come, and what `shopassist doctor` calls bloated."""

MANY_DEAD = 1_000_000
"""Whatever the share: in a table of ten million rows autovacuum lets twice as many lie."""

CHANGED_SHARE = 0.2
"""Of live rows since they were analysed: twice autovacuum's, at which plans begin to be made for another table."""

OLD_AGE = 150_000_000
"""Transactions (`vacuum_freeze_table_age`): from here on a vacuum freezes the whole table. Done at a quiet pace it
spares the one that PostgreSQL forces at 200 million, which gives way to nobody."""

SECONDS_A_TABLE = 600
CLOSING_SECONDS = 2.0
SETTINGS = {
    # Not the pool's: a vacuum of a large table takes minutes, and holds nobody up.
    "statement_timeout": str(1000 * SECONDS_A_TABLE),
    "lock_timeout": "500",
    # As autovacuum does: it leaves the disk to those who wait for it.
    "vacuum_cost_delay": "2",
    "application_name": "shopassist vacuum",
}

# Who may: the owner, who has been given MAINTAIN (PostgreSQL 17 and later), and the owner of the database.
DUE = """
SELECT format('%I.%I', s.schemaname, s.relname) AS name, s.relname AS plain,
       pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE') OR c.relacl IS NOT NULL AND EXISTS (
           SELECT FROM aclexplode(c.relacl) a
           WHERE a.privilege_type = 'MAINTAIN' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE'))
       ) AS may
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
JOIN pg_database d ON d.datname = current_database()
WHERE s.schemaname = 'public' AND (
    s.n_dead_tup >= $1 AND (s.n_dead_tup >= $2 * (s.n_live_tup + s.n_dead_tup) OR s.n_dead_tup >= $3)
    OR s.n_mod_since_analyze >= $1 AND s.n_mod_since_analyze >= $4 * s.n_live_tup
    OR age(c.relfrozenxid) >= $5
)
ORDER BY s.n_dead_tup DESC, 1
"""
THRESHOLDS = (LEAST_ROWS, DEAD_SHARE, MANY_DEAD, CHANGED_SHARE, OLD_AGE)

# Neither waits for a table that somebody has locked, nor locks everybody out to give the end of its file back.
VACUUM = "VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE false) %s"
IS_TAKEN = "55P03"
NEEDS_SESSION = "DB_POOL_MODE=transaction: set DATABASE_DIRECT_URL or DATABASE_MIGRATION_URL for this"
MAY_NOT = "may not vacuum {}: run `shopassist db provision` (PostgreSQL 17 and later), or set DATABASE_MIGRATION_URL"


class PostgresVacuum:
    """Implements `Vacuum`."""

    def __init__(self, config: DatabaseConfig) -> None:
        """Over the owner's link where there is one, else past any pooler."""
        self._config = config

    async def vacuum(self) -> Work:
        url = self._link()
        if url is None:
            return Work(note=NEEDS_SESSION)
        done: list[str] = []
        left: dict[str, list[str]] = {"may not": [], "taken": []}
        with translated():
            async with _connected(url, self._config.connect_timeout) as connection:
                for table in await connection.fetch(DUE, *THRESHOLDS):
                    if not table["may"]:
                        left["may not"].append(table["plain"])
                    elif await _vacuumed(connection, table["name"]):
                        done.append(table["plain"])
                    else:
                        left["taken"].append(table["plain"])
        return Work(len(done), note=_note(done, left))

    def _link(self) -> URL | None:
        config = self._config
        for link, name in (
            (config.migration_url, "DATABASE_MIGRATION_URL"),
            (config.direct_url, "DATABASE_DIRECT_URL"),
        ):
            if link is not None:
                return secured(normalised(link.get_secret_value(), name), config, name)
        if config.database_url is None or config.pool_mode is PoolMode.TRANSACTION:
            return None
        return secured(normalised(config.database_url.get_secret_value()), config)


@asynccontextmanager
async def _connected(url: URL, seconds: float) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own: the pool's have limits that are too short, and others wait for them."""
    connection = await Servers(url).connect(timeout=seconds, server_settings=SETTINGS)
    try:
        yield connection
    finally:
        # Not cut: whoever is stopped in the middle has asked the server to stop as well, and that must get there.
        with suppress(TimeoutError):
            await connection.close(timeout=CLOSING_SECONDS)


async def _vacuumed(connection: asyncpg.Connection, table: str) -> bool:
    """Whether nobody had the table locked."""
    said: list[str] = []
    connection.add_log_listener(listener := lambda _, message: said.append(message.sqlstate))
    try:
        await run(connection, VACUUM, table)
    finally:
        connection.remove_log_listener(listener)
    return IS_TAKEN not in said


def _note(done: list[str], left: dict[str, list[str]]) -> str | None:
    parts = [", ".join(done)] if done else []
    if left["taken"]:
        parts.append(f"locked by others, left for the next time: {', '.join(left['taken'])}")
    if left["may not"]:
        parts.append(MAY_NOT.format(", ".join(left["may not"])))
    return "; ".join(parts) or None
