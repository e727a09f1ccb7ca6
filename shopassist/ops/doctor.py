"""`shopassist doctor`: checks a deployment and says what to put right."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
from sqlalchemy import URL

from shopassist.cache.redis import RedisClient
from shopassist.credits.models import UserCredits
from shopassist.db.connections import DIRECT_CONNECTIONS
from shopassist.db.dsn import apply_tls_settings, get_link_setting, is_local_dsn, normalise_dsn, require_session_dsn
from shopassist.db.migrate import connect, fetch_revision, list_known_revisions
from shopassist.db.roles import EXCESSIVE_PRIVILEGES_QUERY, find_missing_privileges, is_privileged
from shopassist.errors import BackupError, StartupError, StorageUnavailableError
from shopassist.ops.backups import WHOLE, find_last_verified, get_backup_folder, inspect_backup, list_backups
from shopassist.ops.dumps import find_programs
from shopassist.ops.files import describe_passing_folder
from shopassist.settings import Settings
from shopassist.terminal import Columns, create_console, print_rows


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; `fix` says what to do if there is a problem."""

    check: str
    observation: str
    fix: str | None = None

    @property
    def is_healthy(self) -> bool:
        return self.fix is None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings and a connection with the role of the app."""

    settings: Settings
    url: URL
    connection: asyncpg.Connection

    @property
    def is_strict(self) -> bool:
        """Whether the rules of production apply. They do not for the embedded database."""
        return self.settings.server.production and not self.settings.embedded_database


DoctorCheck = Callable[[Deployment], Awaitable[Finding]]

MAX_CLOCK_DIFFERENCE_SECONDS = 1.0
"""A larger difference makes tokens and periods expire at different times."""

LONGEST_UNVERIFIED = timedelta(days=30)
"""Since the last verification. Without any, one is due when there are BACKUP_KEEP backups."""

SPOILT_BACKUP_FIX = "Run `shopassist backup create` for a new one, look at the disk, and remove the files of that one."

TLS_QUERY = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
CONNECTIONS_QUERY = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
"""


async def check_migrations(deployment: Deployment) -> Finding:
    """Check that the schema is the one that this version needs."""
    found, newest = await fetch_revision(deployment.connection), list_known_revisions()[-1]
    fix = None if found == newest else "Run `shopassist db upgrade` with the owner's link, or deploy the other version."
    return Finding("migrations", f"revision {found or 'base'}, this version needs {newest}", fix)


async def check_role(deployment: Deployment) -> Finding:
    """Check that the app cannot switch the ledger's rules off."""
    if not await is_privileged(deployment.connection):
        return Finding("roles", "the app's role has what it needs")
    fix = "Make the roles with `shopassist db provision`, and put the app's into DATABASE_URL."
    return Finding("roles", "the app's role is a superuser or owns the tables", fix if deployment.is_strict else None)


async def check_privileges(deployment: Deployment) -> Finding:
    """Check that the app's role can do its work, and that records which only grow can only be added to."""
    if missing := await find_missing_privileges(deployment.connection.fetchval):
        return Finding(
            "privileges", f"the app's role lacks {missing}", "Run `shopassist db provision`, or grant these."
        )
    excess = await deployment.connection.fetch(EXCESSIVE_PRIVILEGES_QUERY)
    if not excess:
        return Finding("privileges", "records that only grow can only be added to")
    text = ", ".join(f"{row['grantee']} may {row['privilege']} {row['table_name']}" for row in excess)
    return Finding("privileges", text, "Run `shopassist db provision`, or revoke these privileges.")


async def check_tls(deployment: Deployment) -> Finding:
    """Check that a connection over a network is encrypted."""
    if await deployment.connection.fetchval(TLS_QUERY):
        return Finding("tls", "the link to the database is encrypted")
    text = "the link to the database is not encrypted"
    if not deployment.is_strict or is_local_dsn(deployment.url):
        return Finding("tls", f"{text}, and stays on this machine or out of production")
    return Finding("tls", text, "Ask for TLS: DB_SSL_MODE=verify-full with DB_SSL_ROOT_CERT.")


async def check_clock(deployment: Deployment) -> Finding:
    """Compare this machine's clock with the database's."""
    before = datetime.now(UTC)
    database_now: datetime = await deployment.connection.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    difference = (database_now - (before + (after - before) / 2)).total_seconds()
    fix = None if abs(difference) <= MAX_CLOCK_DIFFERENCE_SECONDS else "Synchronise both machines with NTP."
    return Finding("clock", f"the database's clock is {difference:+.2f} s from this machine's", fix)


async def check_connections(deployment: Deployment) -> Finding:
    """Check that the server accepts all connections that the workers may open."""
    database, workers = deployment.settings.database, deployment.settings.server.workers
    needed = workers * (database.pool_size + database.max_overflow + min(database.pool_size, DIRECT_CONNECTIONS))
    available: int = await deployment.connection.fetchval(CONNECTIONS_QUERY)
    text = f"{workers} workers open up to {needed} connections, the server accepts {available}"
    fix = "Lower DB_POOL_SIZE, DB_MAX_OVERFLOW or WORKERS, raise max_connections, or put PgBouncer in between."
    return Finding("connections", text, None if needed <= available else fix)


async def check_settings(deployment: Deployment) -> Finding:
    """Check that no setting is only suitable for development."""
    server, identity = deployment.settings.server, deployment.settings.identity
    if not deployment.is_strict:
        return Finding("settings", f"ENVIRONMENT={server.environment}: the rules of production do not hold")
    possible = {
        "SECRET_KEY is not set": identity.secret_key is None,
        "ALLOWED_HOSTS lets every name through": "*" in server.allowed_hosts,
        "no token issuer is set, so no one can log in": not (identity.issuer and identity.audience),
        "DEBUG is on": server.debug,
        "SAMPLE_CATALOGUE is on": deployment.settings.fill_with_sample,
    }
    if problems := "; ".join(problem for problem, is_found in possible.items() if is_found):
        return Finding("settings", problems, "Set them as the README's table of settings says.")
    hint = "" if server.trusted_proxies else "; behind a proxy, name it in TRUSTED_PROXIES"
    return Finding("settings", f"fit for production{hint}")


async def check_backup_programs(deployment: Deployment) -> Finding:
    """Check that this machine has programs that dump and restore the server."""
    major = deployment.connection.get_server_version().major
    try:
        programs = await asyncio.to_thread(find_programs, require_session_dsn(deployment.settings), major)
    except (BackupError, StartupError) as error:
        return Finding("backup programs", error.detail, "Put that right, or back up elsewhere: see docs/backups.md.")
    return Finding("backup programs", f"pg_dump and pg_restore {programs.major} fit PostgreSQL {major}")


async def check_backup_folder(deployment: Deployment) -> Finding:
    """Check that backups can be written, and outlast the container and the machine's memory."""
    if not deployment.is_strict:
        return Finding("backup folder", "not looked at outside production")
    folder = get_backup_folder(deployment.settings)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding("backup folder", f"{folder} cannot be written to", "Give it to this user, or set BACKUP_FOLDER.")
    if loss := describe_passing_folder(folder):
        return Finding("backup folder", f"{folder} is {loss}", "Put BACKUP_FOLDER on a disk or on a volume.")
    return Finding("backup folder", f"{folder} can be written to and lasts")


async def check_backups(deployment: Deployment) -> Finding:
    """Check that all backups are there, the age of the newest, and when one was last verified."""
    if not deployment.is_strict:
        return Finding("backups", "not looked at outside production")
    folder, config = get_backup_folder(deployment.settings), deployment.settings.backup
    fix = "Run `shopassist backup create` on a schedule, or raise BACKUP_MAX_AGE_HOURS if something else backs up."
    names = list_backups(folder)
    if not names:
        return Finding("backups", f"there is none in {folder}", fix)
    inspected = {name: inspect_backup(folder, name) for name in names}
    newest = inspected[names[-1]][0]
    problems = [f"{name} is {state}" for name, (_, state) in inspected.items() if state != WHOLE]
    if problems or newest is None:
        return Finding("backups", ", ".join(problems), SPOILT_BACKUP_FIX)
    now = datetime.now(UTC)
    hours = (now - newest.created_at).total_seconds() / 3600
    verified = find_last_verified(folder)
    text = f"{verified[1]} was verified on {verified[0]:%Y-%m-%d}" if verified else "none was verified"
    text = f"{newest.name} is {hours:.1f} hours old, {text}"
    if hours > config.longest_age_hours:
        return Finding("backups", text, fix)
    is_due = now - verified[0] > LONGEST_UNVERIFIED if verified else len(names) >= config.keep
    return Finding("backups", text, "Run `shopassist backup verify` now, and every week." if is_due else None)


async def check_shared_cache(deployment: Deployment) -> Finding:
    """Check that Redis answers, if it is configured."""
    url = deployment.settings.shared_cache_url
    if url is None:
        return Finding("shared cache", "REDIS_URL is not set: every answer is read from the database")
    redis = RedisClient(url.get_secret_value())
    try:
        await redis.send(("PING",))
    except StorageUnavailableError:
        text = "Redis does not answer: answers are read from the database"
        return Finding("shared cache", text, "Start it, put its address and password into REDIS_URL, or unset that.")
    finally:
        await redis.close()
    return Finding("shared cache", "Redis answers")


LARGE_TABLE_ROWS = 10_000

INDEXES_QUERY = """
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'
"""
UNUSED_INDEXES_QUERY = """
SELECT string_agg(s.indexrelname, ', ' ORDER BY s.indexrelname) FROM pg_stat_user_indexes s
JOIN pg_index i USING (indexrelid) JOIN pg_stat_user_tables t ON t.relid = s.relid
CROSS JOIN (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS d
WHERE s.idx_scan = 0 AND NOT i.indisunique AND t.n_live_tup >= $1 AND t.seq_scan > 0
  AND COALESCE(d.stats_reset, pg_postmaster_start_time()) < now() - interval '7 days'
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
    """Check that all indexes exist and are valid, and that large ones are used."""
    valid = {row["name"]: row["valid"] for row in await deployment.connection.fetch(INDEXES_QUERY)}
    needed = {str(index.name) for table in UserCredits.metadata.tables.values() for index in table.indexes}
    missing, broken = sorted(needed - valid.keys()), sorted(name for name, is_valid in valid.items() if not is_valid)
    if missing:
        fix = "Build them again: `shopassist db downgrade -1`, then `upgrade`, or CREATE INDEX."
        return Finding("indexes", f"missing: {', '.join(missing)}", fix)
    if broken:
        return Finding("indexes", f"not valid: {', '.join(broken)}", "REINDEX INDEX CONCURRENTLY each of them.")
    if unused := await deployment.connection.fetchval(UNUSED_INDEXES_QUERY, LARGE_TABLE_ROWS):
        return Finding("indexes", f"unused for a week: {unused}", "See whether anything needs them; else drop.")
    return Finding("indexes", f"all {len(needed)} are there and valid")


async def check_leader(deployment: Deployment) -> Finding:
    """Check that a process runs the scheduled jobs."""
    overdue = await deployment.connection.fetchval(OVERDUE_HOLDS_QUERY)
    if overdue:
        text = f"{overdue} holds should have been voided minutes ago"
        return Finding("scheduled work", text, "No server leads: see that one runs, and its log for `job_failed`.")
    has_leader = await deployment.connection.fetchval(LEADER_QUERY)
    return Finding("scheduled work", "a server leads" if has_leader else "no server runs, and nothing is overdue")


async def check_consent(deployment: Deployment) -> Finding:
    """Check that terms are published if they are required, and that consent records agree with the history."""
    if deployment.settings.consent.required and not await deployment.connection.fetchval(PUBLISHED_TERMS_QUERY):
        text = "CONSENT_REQUIRED is set and no terms are published: every question is refused"
        return Finding("consent", text, "Run `shopassist consent publish terms FILE --locale …`.")
    differing = await deployment.connection.fetchval(CONSENT_DIFFERENCES_QUERY)
    if differing:
        text = f"{differing} consent records differ from the history"
        return Finding("consent", text, "An older version wrote them: see docs/consent.md, Rolling deployments.")
    return Finding("consent", "records and history agree")


@dataclass(frozen=True, slots=True)
class SqlCheck:
    """A check by queries, each with a text and a fix. A query returns NULL or 0 if there is no problem."""

    name: str
    healthy: str
    problems: tuple[tuple[str, str, str], ...]

    async def __call__(self, deployment: Deployment) -> Finding:
        """Return the first problem."""
        for query, text, fix in self.problems:
            if value := await deployment.connection.fetchval(query):
                return Finding(self.name, text.format(value), fix)
        return Finding(self.name, self.healthy)


DISABLED_DURABILITY_QUERY = """
SELECT string_agg(name, ', ' ORDER BY name) FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting IN ('off', 'local')
"""
AUTOVACUUM_OFF_QUERY = """
SELECT current_setting('autovacuum') <> 'on' OR EXISTS (
    SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND 'autovacuum_enabled=false' = ANY(reloptions)
)
"""
DEAD_ROWS_QUERY = """
SELECT string_agg(relname || to_char(n_dead_tup, '" has "FM999,999,999,999" dead rows of "')
    || to_char(n_live_tup + n_dead_tup, 'FM999,999,999,999'), ', ' ORDER BY relname)
FROM pg_stat_user_tables WHERE n_dead_tup > 10000 AND n_dead_tup > 0.3 * (n_live_tup + n_dead_tup)
"""
LEDGER_DIFFERENCE_QUERY = """
SELECT (SELECT COALESCE(sum(amount), 0) FROM credit_transactions)
     - (SELECT COALESCE(sum(available_credits::bigint + held_credits), 0) FROM user_credits)
"""
ENABLE_AUTOVACUUM_FIX = "Switch autovacuum on, for the server and for each table."
VACUUM_FIX = "Run `shopassist maintenance run vacuum`, and look for transactions that stay open."
DURABILITY_FIX = "Switch that on: what is acknowledged may be lost."
APART_TEXT = "balances and ledger are {} credits apart"

CHECKS: tuple[DoctorCheck, ...] = (
    check_migrations,
    check_role,
    check_tls,
    check_clock,
    SqlCheck(
        "durability", "what is acknowledged is on the disk", ((DISABLED_DURABILITY_QUERY, "{} off", DURABILITY_FIX),)
    ),
    check_connections,
    check_settings,
    check_backup_programs,
    check_backup_folder,
    check_backups,
    check_shared_cache,
)
CONTENT_CHECKS: tuple[DoctorCheck, ...] = (
    check_indexes,
    check_privileges,
    SqlCheck(
        "bloat",
        "no table is full of dead rows",
        ((AUTOVACUUM_OFF_QUERY, "autovacuum is off", ENABLE_AUTOVACUUM_FIX), (DEAD_ROWS_QUERY, "{}", VACUUM_FIX)),
    ),
    SqlCheck(
        "ledger",
        "balances and ledger agree in sum",
        ((LEDGER_DIFFERENCE_QUERY, APART_TEXT, "Run `shopassist credits verify`."),),
    ),
    check_leader,
    check_consent,
)
"""Checks that need the schema of this version."""


async def run_checks(settings: Settings) -> list[Finding]:
    """Run all checks in order. Raises `StartupError` if the database cannot be reached."""
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    url = apply_tls_settings(normalise_dsn(settings.database.database_url.get_secret_value()), settings.database)
    async with connect(url, get_link_setting(settings)) as connection:
        deployment = Deployment(settings, url, connection)
        checks = CHECKS + (CONTENT_CHECKS if await fetch_revision(connection) == list_known_revisions()[-1] else ())
        return [await check(deployment) for check in checks]


FINDING_COLUMNS: Columns = (
    ("", lambda finding: "ok" if finding.is_healthy else "!!"),
    ("check", lambda finding: finding.check),
    ("seen", lambda finding: finding.observation),
    ("to do", lambda finding: finding.fix or ""),
)


def print_findings(findings: list[Finding], *, as_json: bool = False) -> bool:
    """Print the findings; return whether all are healthy."""
    print_rows(findings, FINDING_COLUMNS, as_json=as_json)
    problems = sum(not finding.is_healthy for finding in findings)
    if not as_json:
        verdict = f"{problems} to put right" if problems else "all well"
        create_console().print(f"{len(findings)} checks, {verdict}")
    return not problems
