"""`shopassist doctor`: checks a deployment and says what to put right."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL

from shopassist.cache.redis import build_redis_client
from shopassist.credits.models import UserCredits
from shopassist.db.direct_pool import DIRECT_CONNECTIONS
from shopassist.db.dsn import apply_tls_settings, is_local_dsn, normalise_dsn
from shopassist.db.migrate import connect, fetch_revision, list_known_revisions
from shopassist.db.roles import is_privileged
from shopassist.errors import BackupError, StartupError, StorageUnavailableError
from shopassist.ops.backup.create import get_backup_folder
from shopassist.ops.backup.manifest import get_dump_file, list_backups, read_manifest
from shopassist.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was seen, and, where something is wrong, what to do about it."""

    check: str
    seen: str
    fix: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to do."""
        return self.fix is None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings, and a connection as the app has it."""

    settings: Settings
    url: URL
    connection: asyncpg.Connection

    @property
    def guarded(self) -> bool:
        """Whether the strict rules of production hold: not for the embedded database."""
        return self.settings.server.production and not self.settings.embedded_database


DoctorCheck = Callable[[Deployment], Awaitable[Finding]]

MAX_CLOCK_DIFFERENCE_SECONDS = 1.0
"""Further apart, tokens and periods are judged by different clocks."""

DURABILITY_QUERY = (
    "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
)
TLS_QUERY = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
CONNECTIONS_QUERY = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
"""


async def check_migrations(deployment: Deployment) -> Finding:
    """The schema is the one that this version needs."""
    found, newest = await fetch_revision(deployment.connection), list_known_revisions()[-1]
    fix = None if found == newest else "Run `shopassist db upgrade` with the owner's link, or deploy the other version."
    return Finding("migrations", f"revision {found or 'base'}, this version needs {newest}", fix)


async def check_role(deployment: Deployment) -> Finding:
    """The app cannot switch the ledger's rules off."""
    privileged = await is_privileged(deployment.connection)
    seen = "the app's role is a superuser or owns the tables" if privileged else "the app's role has what it needs"
    if not privileged or not deployment.guarded:
        return Finding("roles", seen)
    return Finding("roles", seen, "Make the roles with `shopassist db provision`, and put the app's into DATABASE_URL.")


async def check_tls(deployment: Deployment) -> Finding:
    """What goes over a network is encrypted."""
    if await deployment.connection.fetchval(TLS_QUERY):
        return Finding("tls", "the link to the database is encrypted")
    seen = "the link to the database is not encrypted"
    if not deployment.guarded or is_local_dsn(deployment.url):
        return Finding("tls", f"{seen}, and stays on this machine or out of production")
    return Finding("tls", seen, "Ask for TLS: DB_SSL_MODE=verify-full with DB_SSL_ROOT_CERT.")


async def check_clock(deployment: Deployment) -> Finding:
    """The app's clock and the database's agree."""
    before = datetime.now(UTC)
    theirs: datetime = await deployment.connection.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    apart = (theirs - (before + (after - before) / 2)).total_seconds()
    fix = None if abs(apart) <= MAX_CLOCK_DIFFERENCE_SECONDS else "Let both machines follow one time service (NTP)."
    return Finding("clock", f"the database's clock is {apart:+.2f} s from this machine's", fix)


async def check_durability(deployment: Deployment) -> Finding:
    """What is acknowledged is on the disk."""
    off = sorted(
        row["name"] for row in await deployment.connection.fetch(DURABILITY_QUERY) if row["setting"] in {"off", "local"}
    )
    if not off:
        return Finding("durability", "what is acknowledged is on the disk")
    return Finding("durability", f"{', '.join(off)} off", "Switch that on: what is acknowledged may be lost.")


async def check_connections(deployment: Deployment) -> Finding:
    """The server bears all that the workers may open."""
    database, workers = deployment.settings.database, deployment.settings.server.workers
    most = workers * (database.pool_size + database.max_overflow + min(database.pool_size, DIRECT_CONNECTIONS))
    borne: int = await deployment.connection.fetchval(CONNECTIONS_QUERY)
    seen = f"{workers} workers open up to {most} connections, the server bears {borne}"
    fix = "Lower DB_POOL_SIZE, DB_MAX_OVERFLOW or WORKERS, raise max_connections, or put PgBouncer in between."
    return Finding("connections", seen, None if most <= borne else fix)


async def check_settings(deployment: Deployment) -> Finding:
    """Nothing that is fit for development alone is left in production."""
    server, identity = deployment.settings.server, deployment.settings.identity
    if not deployment.guarded:
        return Finding("settings", f"ENVIRONMENT={server.environment}: the rules of production do not hold")
    wrong = {
        "SECRET_KEY is not set": identity.secret_key is None,
        "ALLOWED_HOSTS lets every name through": "*" in server.allowed_hosts,
        "no token issuer is set, so nobody can log in": not (identity.issuer and identity.audience),
        "DEBUG is on": server.debug,
        "SAMPLE_CATALOGUE is on": deployment.settings.fill_with_sample,
    }
    said = [what for what, is_wrong in wrong.items() if is_wrong]
    if not said and not server.trusted_proxies:
        return Finding("settings", "fit for production; behind a proxy, name it in TRUSTED_PROXIES")
    if not said:
        return Finding("settings", "fit for production")
    return Finding("settings", "; ".join(said), "Set them as the README's table of settings says.")


async def check_backups(deployment: Deployment) -> Finding:
    """The newest backup is young and whole as far as a look can tell."""
    if not deployment.guarded:
        return Finding("backups", "not looked at outside production")
    folder, longest = (
        get_backup_folder(deployment.settings),
        timedelta(hours=deployment.settings.backup.longest_age_hours),
    )
    fix = "Run `shopassist backup create` on a schedule, or raise BACKUP_MAX_AGE_HOURS if something else backs up."
    names = list_backups(folder)
    if not names:
        return Finding("backups", f"there is none in {folder}", fix)
    try:
        newest = read_manifest(folder, names[-1])
        size = get_dump_file(folder, newest.name).stat().st_size
    except (BackupError, OSError):
        return Finding("backups", f"the newest, {names[-1]}, is damaged", fix)
    age = datetime.now(UTC) - newest.created_at
    seen = f"{newest.name} is {age.total_seconds() / 3600:.1f} hours old"
    if size != newest.size:
        return Finding("backups", f"{newest.name} is cut off", fix)
    return Finding("backups", seen, fix if age > longest else None)


async def check_shared_cache(deployment: Deployment) -> Finding:
    """Redis answers, where it is to be asked."""
    link = build_redis_client(deployment.settings.shared_cache_url)
    if link is None:
        return Finding("shared cache", "REDIS_URL is not set: every answer is read from the database")
    try:
        await link.ping()
    except StorageUnavailableError:
        seen = "Redis does not answer: answers are read from the database"
        return Finding("shared cache", seen, "Start it, put its address and password into REDIS_URL, or unset that.")
    finally:
        await link.close()
    return Finding("shared cache", "Redis answers")


LARGE_TABLE_ROWS = 10_000
BLOATED_SHARE = 0.3

INDEXES_QUERY = """
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'
"""
UNUSED_INDEXES_QUERY = """
SELECT s.indexrelname AS name FROM pg_stat_user_indexes s
JOIN pg_index i USING (indexrelid) JOIN pg_stat_user_tables t ON t.relid = s.relid
CROSS JOIN (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS d
WHERE s.idx_scan = 0 AND NOT i.indisunique AND t.n_live_tup >= $1 AND t.seq_scan > 0
  AND COALESCE(d.stats_reset, pg_postmaster_start_time()) < now() - interval '7 days'
ORDER BY 1
"""
BLOATED_TABLES_QUERY = """
SELECT s.relname AS name, s.n_dead_tup AS dead, s.n_live_tup AS live FROM pg_stat_user_tables s
WHERE s.n_dead_tup > $1 AND s.n_dead_tup > $2 * (s.n_live_tup + s.n_dead_tup) ORDER BY 1
"""
AUTOVACUUM_QUERY = """
SELECT current_setting('autovacuum') = 'on' AND NOT EXISTS (
    SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND 'autovacuum_enabled=false' = ANY(reloptions)
)
"""
LEDGER_DIFFERENCE_QUERY = """
SELECT (SELECT COALESCE(sum(amount), 0) FROM credit_transactions)
     - (SELECT COALESCE(sum(available_credits::bigint + held_credits), 0) FROM user_credits)
"""
OVERDUE_HOLDS_QUERY = "SELECT count(*) FROM credit_holds WHERE expires_at < now() - interval '2 minutes'"
PUBLISHED_TERMS_QUERY = "SELECT count(*) FROM consent_notices WHERE purpose = 'terms'"
CONSENT_DIFFERENCES_QUERY = """
SELECT count(*) FROM user_consents r
LEFT JOIN LATERAL (
    SELECT e.granted FROM consent_events e
    WHERE e.user_id = r.user_id AND e.is_guest = false AND e.purpose = 'terms' ORDER BY e.id DESC LIMIT 1
) AS terms ON true
LEFT JOIN LATERAL (
    SELECT e.granted FROM consent_events e
    WHERE e.user_id = r.user_id AND e.is_guest = false AND e.purpose = 'marketing' ORDER BY e.id DESC LIMIT 1
) AS marketing ON true
WHERE r.terms_accepted <> COALESCE(terms.granted, false) OR r.marketing_consent <> COALESCE(marketing.granted, false)
"""
LEADER_QUERY = "SELECT expires_at > now() FROM leases WHERE name = 'scheduler'"


async def check_indexes(deployment: Deployment) -> Finding:
    """Every index that queries need is there and whole, and none is dead weight."""
    found = {row["name"]: row["valid"] for row in await deployment.connection.fetch(INDEXES_QUERY)}
    wanted = {str(index.name) for table in UserCredits.metadata.tables.values() for index in table.indexes}
    missing, broken = sorted(wanted - found.keys()), sorted(name for name, valid in found.items() if not valid)
    if missing:
        seen = f"missing: {', '.join(missing)}"
        return Finding(
            "indexes", seen, "Build them again: `shopassist db downgrade -1`, then `upgrade`, or CREATE INDEX."
        )
    if broken:
        return Finding("indexes", f"not valid: {', '.join(broken)}", "REINDEX INDEX CONCURRENTLY each of them.")
    unused = [row["name"] for row in await deployment.connection.fetch(UNUSED_INDEXES_QUERY, LARGE_TABLE_ROWS)]
    if unused:
        return Finding(
            "indexes", f"unused for a week: {', '.join(unused)}", "See whether anything needs them; else drop."
        )
    return Finding("indexes", f"all {len(wanted)} are there and valid")


async def check_dead_rows(deployment: Deployment) -> Finding:
    """Deleted and replaced rows are cleared away."""
    if not await deployment.connection.fetchval(AUTOVACUUM_QUERY):
        return Finding("bloat", "autovacuum is off", "Switch autovacuum on, for the server and for each table.")
    rows = await deployment.connection.fetch(BLOATED_TABLES_QUERY, LARGE_TABLE_ROWS, BLOATED_SHARE)
    if not rows:
        return Finding("bloat", "no table is full of dead rows")
    seen = ", ".join(f"{row['name']} has {row['dead']:,} dead rows of {row['live'] + row['dead']:,}" for row in rows)
    return Finding("bloat", seen, "Run `shopassist maintenance run vacuum`, and look for transactions that stay open.")


async def check_ledger(deployment: Deployment) -> Finding:
    """Accounts and ledger agree in sum."""
    apart = await deployment.connection.fetchval(LEDGER_DIFFERENCE_QUERY)
    if not apart:
        return Finding("ledger", "balances and ledger agree in sum")
    return Finding("ledger", f"balances and ledger are {apart} credits apart", "Run `shopassist credits verify`.")


async def check_leader(deployment: Deployment) -> Finding:
    """Some process does the scheduled work."""
    forgotten = await deployment.connection.fetchval(OVERDUE_HOLDS_QUERY)
    if forgotten:
        seen = f"{forgotten} holds should have been voided minutes ago"
        return Finding("scheduled work", seen, "No server leads: see that one runs, and its log for `job_failed`.")
    leads = await deployment.connection.fetchval(LEADER_QUERY)
    return Finding("scheduled work", "a server leads" if leads else "no server runs, and nothing is overdue")


async def check_consent(deployment: Deployment) -> Finding:
    """What must be agreed to is published, and the records of consent are what the history says."""
    if deployment.settings.consent.required and not await deployment.connection.fetchval(PUBLISHED_TERMS_QUERY):
        seen = "CONSENT_REQUIRED is set and no terms are published: every question is refused"
        return Finding("consent", seen, "Run `shopassist consent publish terms FILE --locale …`.")
    apart = await deployment.connection.fetchval(CONSENT_DIFFERENCES_QUERY)
    if apart:
        seen = f"{apart} consent records differ from the history"
        return Finding("consent", seen, "An older version wrote them: see docs/consent.md, Rolling deployments.")
    return Finding("consent", "records and history agree")


CHECKS: tuple[DoctorCheck, ...] = (
    check_migrations,
    check_role,
    check_tls,
    check_clock,
    check_durability,
    check_connections,
    check_settings,
    check_backups,
    check_shared_cache,
)
CONTENT_CHECKS: tuple[DoctorCheck, ...] = (
    check_indexes,
    check_dead_rows,
    check_ledger,
    check_leader,
    check_consent,
)
"""Checks of what only a database with the schema of this version has."""


async def run_checks(settings: Settings) -> list[Finding]:
    """What was found, in the order of the checks. Raises `StartupError` when the database cannot be reached."""
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    url = apply_tls_settings(normalise_dsn(settings.database.database_url.get_secret_value()), settings.database)
    async with connect(url) as connection:
        deployment = Deployment(settings, url, connection)
        checks = CHECKS + (CONTENT_CHECKS if await fetch_revision(connection) == list_known_revisions()[-1] else ())
        return [await check(deployment) for check in checks]


def print_findings(findings: list[Finding]) -> bool:
    """Print them; whether all is well."""
    table = Table("", "check", "seen", "to do", box=None, pad_edge=False)
    for finding in findings:
        table.add_row("ok" if finding.healthy else "!!", finding.check, finding.seen, finding.fix or "")
    console = Console(highlight=False, markup=False)
    console.print(table)
    wrong = sum(not finding.healthy for finding in findings)
    console.print(f"{len(findings)} checks, {wrong} to put right" if wrong else f"{len(findings)} checks, all well")
    return not wrong
