"""What is in the database: indexes, dead rows, money, and work that nobody does."""

from shopassist.models import UserCredits
from shopassist.ops.doctor.finding import Deployment, Finding

LARGE_ROWS = 10_000
BLOATED_SHARE = 0.3

INDEXES = """
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'
"""
UNUSED = """
SELECT s.indexrelname AS name FROM pg_stat_user_indexes s
JOIN pg_index i USING (indexrelid) JOIN pg_stat_user_tables t ON t.relid = s.relid
CROSS JOIN (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS d
WHERE s.idx_scan = 0 AND NOT i.indisunique AND t.n_live_tup >= $1 AND t.seq_scan > 0
  AND COALESCE(d.stats_reset, pg_postmaster_start_time()) < now() - interval '7 days'
ORDER BY 1
"""
BLOATED = """
SELECT s.relname AS name, s.n_dead_tup AS dead, s.n_live_tup AS live FROM pg_stat_user_tables s
WHERE s.n_dead_tup > $1 AND s.n_dead_tup > $2 * (s.n_live_tup + s.n_dead_tup) ORDER BY 1
"""
AUTOVACUUM = """
SELECT current_setting('autovacuum') = 'on' AND NOT EXISTS (
    SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND 'autovacuum_enabled=false' = ANY(reloptions)
)
"""
SUMS = """
SELECT (SELECT COALESCE(sum(amount), 0) FROM credit_transactions)
     - (SELECT COALESCE(sum(available_credits::bigint + held_credits), 0) FROM user_credits)
"""
FORGOTTEN_HOLDS = "SELECT count(*) FROM credit_holds WHERE expires_at < now() - interval '2 minutes'"
TERMS = "SELECT count(*) FROM consent_notices WHERE purpose = 'terms'"
APART = """
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
LEADER = "SELECT expires_at > now() FROM leases WHERE name = 'scheduler'"


async def indexes(deployment: Deployment) -> Finding:
    """Every index that queries need is there and whole, and none is dead weight."""
    found = {row["name"]: row["valid"] for row in await deployment.connection.fetch(INDEXES)}
    wanted = {str(index.name) for table in UserCredits.metadata.tables.values() for index in table.indexes}
    missing, broken = sorted(wanted - found.keys()), sorted(name for name, valid in found.items() if not valid)
    if missing:
        seen = f"missing: {', '.join(missing)}"
        return Finding(
            "indexes", seen, "Build them again: `shopassist db downgrade -1`, then `upgrade`, or CREATE INDEX."
        )
    if broken:
        return Finding("indexes", f"not valid: {', '.join(broken)}", "REINDEX INDEX CONCURRENTLY each of them.")
    unused = [row["name"] for row in await deployment.connection.fetch(UNUSED, LARGE_ROWS)]
    if unused:
        return Finding(
            "indexes", f"unused for a week: {', '.join(unused)}", "See whether anything needs them; else drop."
        )
    return Finding("indexes", f"all {len(wanted)} are there and valid")


async def dead_rows(deployment: Deployment) -> Finding:
    """Deleted and replaced rows are cleared away."""
    if not await deployment.connection.fetchval(AUTOVACUUM):
        return Finding("bloat", "autovacuum is off", "Switch autovacuum on, for the server and for each table.")
    rows = await deployment.connection.fetch(BLOATED, LARGE_ROWS, BLOATED_SHARE)
    if not rows:
        return Finding("bloat", "no table is full of dead rows")
    seen = ", ".join(f"{row['name']} has {row['dead']:,} dead rows of {row['live'] + row['dead']:,}" for row in rows)
    return Finding("bloat", seen, "Run `shopassist maintenance run vacuum`, and look for transactions that stay open.")


async def money(deployment: Deployment) -> Finding:
    """Accounts and ledger agree in sum."""
    apart = await deployment.connection.fetchval(SUMS)
    if not apart:
        return Finding("ledger", "balances and ledger agree in sum")
    return Finding("ledger", f"balances and ledger are {apart} credits apart", "Run `shopassist credits verify`.")


async def leader(deployment: Deployment) -> Finding:
    """Some process does the scheduled work."""
    forgotten = await deployment.connection.fetchval(FORGOTTEN_HOLDS)
    if forgotten:
        seen = f"{forgotten} holds should have been voided minutes ago"
        return Finding("scheduled work", seen, "No server leads: see that one runs, and its log for `job_failed`.")
    leads = await deployment.connection.fetchval(LEADER)
    return Finding("scheduled work", "a server leads" if leads else "no server runs, and nothing is overdue")


async def consent(deployment: Deployment) -> Finding:
    """What must be agreed to is published, and the records of consent are what the history says."""
    if deployment.settings.consent.required and not await deployment.connection.fetchval(TERMS):
        seen = "CONSENT_REQUIRED is set and no terms are published: every question is refused"
        return Finding("consent", seen, "Run `shopassist consent publish terms FILE --locale …`.")
    apart = await deployment.connection.fetchval(APART)
    if apart:
        seen = f"{apart} consent records differ from the history"
        return Finding("consent", seen, "An older version wrote them: see docs/consent.md, Rolling deployments.")
    return Finding("consent", "records and history agree")
