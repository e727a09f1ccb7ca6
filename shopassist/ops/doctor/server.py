"""The database server: who we are there, over which link, and how it keeps what it is given."""

from datetime import UTC, datetime

from shopassist.db.hot import HOT_CONNECTIONS
from shopassist.db.migrate import known_revisions, revision_of
from shopassist.db.postgres.roles import is_privileged
from shopassist.db.tls import is_local
from shopassist.ops.doctor.finding import Deployment, Finding

CLOCK_SECONDS = 1.0
"""Further apart, tokens and periods are judged by different clocks."""

DURABLE = "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
OVER_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
CONNECTIONS = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
"""


async def migrations(deployment: Deployment) -> Finding:
    """The schema is the one that this version needs."""
    found, newest = await revision_of(deployment.connection), known_revisions()[-1]
    fix = None if found == newest else "Run `shopassist db upgrade` with the owner's link, or deploy the other version."
    return Finding("migrations", f"revision {found or 'base'}, this version needs {newest}", fix)


async def role(deployment: Deployment) -> Finding:
    """The app cannot switch the ledger's rules off."""
    privileged = await is_privileged(deployment.connection)
    seen = "the app's role is a superuser or owns the tables" if privileged else "the app's role has what it needs"
    if not privileged or not deployment.guarded:
        return Finding("roles", seen)
    return Finding("roles", seen, "Make the roles with `shopassist db provision`, and put the app's into DATABASE_URL.")


async def tls(deployment: Deployment) -> Finding:
    """What goes over a network is encrypted."""
    if await deployment.connection.fetchval(OVER_TLS):
        return Finding("tls", "the link to the database is encrypted")
    seen = "the link to the database is not encrypted"
    if not deployment.guarded or is_local(deployment.url):
        return Finding("tls", f"{seen}, and stays on this machine or out of production")
    return Finding("tls", seen, "Ask for TLS: DB_SSL_MODE=verify-full with DB_SSL_ROOT_CERT.")


async def clock(deployment: Deployment) -> Finding:
    """The app's clock and the database's agree."""
    before = datetime.now(UTC)
    theirs: datetime = await deployment.connection.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    apart = (theirs - (before + (after - before) / 2)).total_seconds()
    fix = None if abs(apart) <= CLOCK_SECONDS else "Let both machines follow one time service (NTP)."
    return Finding("clock", f"the database's clock is {apart:+.2f} s from this machine's", fix)


async def durability(deployment: Deployment) -> Finding:
    """What is acknowledged is on the disk."""
    off = sorted(
        row["name"] for row in await deployment.connection.fetch(DURABLE) if row["setting"] in {"off", "local"}
    )
    if not off:
        return Finding("durability", "what is acknowledged is on the disk")
    return Finding("durability", f"{', '.join(off)} off", "Switch that on: what is acknowledged may be lost.")


async def connections(deployment: Deployment) -> Finding:
    """The server bears all that the workers may open."""
    database, workers = deployment.settings.database, deployment.settings.server.workers
    most = workers * (database.pool_size + database.max_overflow + min(database.pool_size, HOT_CONNECTIONS))
    borne: int = await deployment.connection.fetchval(CONNECTIONS)
    seen = f"{workers} workers open up to {most} connections, the server bears {borne}"
    fix = "Lower DB_POOL_SIZE, DB_MAX_OVERFLOW or WORKERS, raise max_connections, or put PgBouncer in between."
    return Finding("connections", seen, None if most <= borne else fix)
