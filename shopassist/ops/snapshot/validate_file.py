"""Validates the staged rows as a whole: constraints, references, sums and erased users."""

from collections.abc import AsyncIterator, Callable

import asyncpg

from shopassist.db import statements
from shopassist.ops.snapshot.staging import get_staging_table, set_phase
from shopassist.ops.snapshot.tables import TABLE_SPECS, USER_SPECS, TableSpec

CONSTRAINTS_QUERY = """
SELECT conname AS name, pg_get_expr(conbin, conrelid) AS rule FROM pg_constraint
WHERE contype = 'c' AND conrelid = to_regclass('public.' || quote_ident($1))
"""

# The database's own rules, before the rows are in its own tables.
REJECT_BROKEN = """
WITH gone AS (DELETE FROM %I WHERE NOT (%s) RETURNING line, %s AS owner)
INSERT INTO rejected (line, kind, owner, reason) SELECT line, %L, owner, 'breaks the rule ' || %L FROM gone
"""

REJECT_REPEATED = """
WITH several AS (
    SELECT %s, min(line) AS first FROM %I WHERE (%s) IS NOT NULL GROUP BY %s HAVING count(*) > 1
), gone AS (
    DELETE FROM %I r USING several WHERE (%s) = (%s) AND r.line > first RETURNING r.line, r.%s AS owner, first
)
INSERT INTO rejected (line, kind, owner, reason)
SELECT line, %L, owner, 'repeats line ' || first || ' (' || %L || ')' FROM gone
"""

REJECT_DIFFERENT_NOTICES = """
WITH gone AS (
    DELETE FROM staged_consent_notices s USING public.consent_notices n
    WHERE (n.purpose, n.version, n.locale) = (s.purpose, s.version, s.locale) AND n.sha256 <> s.sha256 RETURNING s.line
)
INSERT INTO rejected (line, kind, reason)
SELECT line, 'consent_notices', 'is there already, with other words' FROM gone
"""

REJECT_WITHOUT_NOTICE = """
WITH gone AS (
    DELETE FROM staged_consent_events e WHERE notice_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM staged_consent_notices n WHERE n.id = e.notice_id AND n.purpose = e.purpose)
    RETURNING line, user_id
)
INSERT INTO rejected (line, kind, owner, reason)
SELECT line, 'consent_events', user_id, 'its notice is not in the file, or of another purpose' FROM gone
"""

REJECT_WITHOUT_ACCOUNT = """
WITH gone AS (
    DELETE FROM %I s WHERE NOT EXISTS (SELECT FROM staged_user_credits c WHERE c.user_id = s.user_id)
    RETURNING line, user_id
)
INSERT INTO rejected (line, kind, owner, reason)
SELECT line, %L, user_id, 'its account is not in the file, or is refused' FROM gone
"""

# The newest balance comes from one pass without sorting: the highest line, with the balance in the lower 32 bits.
CREATE_LEDGERS = """
CREATE TEMPORARY TABLE ledgers ON COMMIT DROP AS
SELECT user_id, sum(amount) AS total, max((line << 32) | (COALESCE(balance_after, 0)::bigint & 4294967295)) AS newest,
       bool_or(balance_after IS NULL) AS unbalanced
FROM staged_credit_transactions GROUP BY user_id
"""

REJECT_WRONG_SUMS = """
WITH holds AS (
    SELECT user_id, sum(amount) AS total FROM staged_credit_holds GROUP BY user_id
), wrong AS (
    SELECT c.line, CASE
        WHEN l.total <> c.available_credits::bigint + c.held_credits THEN
            'available and held credits are ' || c.available_credits::bigint + c.held_credits
            || ', the sum of its transactions is ' || l.total
        WHEN COALESCE(h.total, 0) <> c.held_credits THEN
            'held credits are ' || c.held_credits || ', the sum of its holds is ' || COALESCE(h.total, 0)
        WHEN NOT l.unbalanced AND (l.newest & 4294967295) <> (l.total::bigint & 4294967295) THEN
            'the balance after its newest transaction is not the sum of them, ' || l.total
        END AS reason
    FROM staged_user_credits c LEFT JOIN ledgers l USING (user_id) LEFT JOIN holds h USING (user_id)
), gone AS (
    DELETE FROM staged_user_credits c USING wrong w WHERE w.line = c.line AND w.reason IS NOT NULL
    RETURNING c.line, c.user_id, w.reason
)
INSERT INTO rejected (line, kind, owner, reason) SELECT line, 'user_credits', user_id, reason FROM gone
"""

USERS_SINCE_QUERY = """
SELECT user_id, min(since) AS since FROM (
    SELECT user_id, created_at AS since FROM staged_user_credits
    UNION ALL SELECT user_id, "timestamp" FROM staged_user_consents
    UNION ALL SELECT user_id, "timestamp" FROM staged_consent_events
    UNION ALL SELECT user_id, NULL FROM staged_idempotent_answers
    UNION ALL SELECT response ->> 'user_id', NULL FROM staged_idempotent_answers
    UNION ALL SELECT guest_id, NULL FROM staged_guest_merges
    UNION ALL SELECT user_id, NULL FROM staged_guest_merges
    UNION ALL SELECT target, NULL FROM staged_admin_audit
) AS traces WHERE user_id IS NOT NULL GROUP BY user_id
"""
INSERT_ERASED = """
INSERT INTO erased (user_id) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING
"""
REJECT_ERASED = """
WITH gone AS (
    DELETE FROM %I s USING erased e WHERE s.%I = e.user_id RETURNING s.line
)
INSERT INTO rejected (line, kind, reason) SELECT line, %L, 'the person was erased' FROM gone
"""
REJECT_ERASED_ADJUSTMENTS = """
WITH gone AS (
    DELETE FROM staged_idempotent_answers s USING erased e WHERE s.response ->> 'user_id' = e.user_id RETURNING s.line
)
INSERT INTO rejected (line, kind, reason) SELECT line, 'idempotent_answers', 'the person was erased' FROM gone
"""
ANONYMISE_ERASED_MERGES = "UPDATE staged_guest_merges s SET user_id = NULL FROM erased e WHERE e.user_id = s.user_id"

CREATE_REFUSED = """
CREATE TEMPORARY TABLE refused ON COMMIT DROP AS
SELECT r.owner AS user_id, min(r.line) AS line FROM rejected r
WHERE r.owner IS NOT NULL AND r.kind = ANY($1::text[]) GROUP BY r.owner
"""
ANY_REFUSED_QUERY = "SELECT EXISTS (SELECT FROM refused)"
REJECT_REFUSED = """
WITH gone AS (
    DELETE FROM %I s USING refused r WHERE r.user_id = s.user_id RETURNING s.line, s.user_id, r.line AS first
)
INSERT INTO rejected (line, kind, owner, reason)
SELECT line, %L, user_id, 'line ' || first || ' of the same person is refused' FROM gone
"""

# Accounts of before the ledger was. Whose credits are none need no row, since none may be of 0.
INSERT_INITIAL_BALANCES = """
INSERT INTO staged_credit_transactions
    (line, user_id, transaction_type, amount, "timestamp", description, balance_after)
SELECT c.line, c.user_id, 'opening', c.available_credits + c.held_credits, c.created_at, 'Opening balance',
       c.available_credits + c.held_credits
FROM staged_user_credits c
WHERE c.available_credits + c.held_credits > 0 AND NOT EXISTS (SELECT FROM ledgers l WHERE l.user_id = c.user_id)
"""
ANY_UNBALANCED_QUERY = "SELECT EXISTS (SELECT FROM ledgers WHERE unbalanced)"
UPDATE_BALANCES = """
UPDATE staged_credit_transactions t SET balance_after = b.balance
FROM (
    SELECT line, sum(amount) OVER (PARTITION BY user_id ORDER BY line) AS balance FROM staged_credit_transactions
    WHERE user_id IN (SELECT user_id FROM ledgers WHERE unbalanced)
) AS b
WHERE b.line = t.line AND t.balance_after IS NULL
"""

# As the migration that began the history: who was only not asked about marketing has decided nothing. The second event
# of a line is numbered as if it stood behind the file's end. A table of its own, since a statement that looks through
# the one it adds to may go through its own rows again and again.
CREATE_RECORDS_WITHOUT_EVENTS = """
CREATE TEMPORARY TABLE alone ON COMMIT DROP AS
SELECT c.* FROM staged_user_consents c
WHERE NOT EXISTS (SELECT FROM staged_consent_events e WHERE e.user_id = c.user_id AND NOT e.is_guest)
"""
INSERT_EARLIER_RECORDS = """
INSERT INTO staged_consent_events (line, user_id, is_guest, purpose, granted, source, "timestamp")
SELECT line, user_id, false, 'terms', terms_accepted, 'earlier_record', "timestamp" FROM alone
UNION ALL
SELECT line + $1, user_id, false, 'marketing', true, 'earlier_record', updated_at FROM alone WHERE marketing_consent
"""

HashUserId = Callable[[str], str]
ReportStep = Callable[[str], object]

SET_MEMORY = """
SELECT set_config('work_mem', '128MB', true), set_config('maintenance_work_mem', '512MB', true)
"""
ERASURES_QUERY = "SELECT subject_hash, max(requested_at) AS erased_at FROM public.erasures GROUP BY subject_hash"
TABLES_NEEDING_ACCOUNT = ("credit_transactions", "credit_holds")
PAGE_SIZE = 10_000


async def validate_staged(connection: asyncpg.Connection, lines: int, subject: HashUserId, said: ReportStep) -> None:
    """Refuse rows that do not go together, whole people, and add what older files leave out; in one transaction.

    `lines` are those of the file, `subject` hashes user ids.
    """
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        for kind in TABLE_SPECS:
            await statements.execute_quoted(connection, "ANALYZE %I", get_staging_table(kind))
        said("rules of the tables")
        for kind in TABLE_SPECS:
            await _reject_broken(connection, kind)
            for columns in kind.unique:
                await _reject_repeated(connection, kind, columns)
        said("references and sums")
        await connection.execute(REJECT_DIFFERENT_NOTICES)
        await connection.execute(REJECT_WITHOUT_NOTICE)
        for name in TABLES_NEEDING_ACCOUNT:
            await statements.execute_quoted(connection, REJECT_WITHOUT_ACCOUNT, f"staged_{name}", name)
        await connection.execute(CREATE_LEDGERS)
        await connection.execute("ANALYZE ledgers")
        await connection.execute(REJECT_WRONG_SUMS)
        said("people who were erased")
        await reject_erased(connection, subject)
        await _reject_refused_users(connection)
        said("what older files leave out")
        await connection.execute(INSERT_INITIAL_BALANCES)
        if await connection.fetchval(ANY_UNBALANCED_QUERY):
            await connection.execute(UPDATE_BALANCES)
        await connection.execute(CREATE_RECORDS_WITHOUT_EVENTS)
        await connection.execute(INSERT_EARLIER_RECORDS, lines)
        await set_phase(connection, "checked")


async def _reject_broken(connection: asyncpg.Connection, kind: TableSpec) -> None:
    for check_ in await connection.fetch(CONSTRAINTS_QUERY, kind.name):
        owner = kind.owner or "NULL"
        await statements.execute_quoted(
            connection, REJECT_BROKEN, get_staging_table(kind), check_["rule"], owner, kind.name, check_["name"]
        )


async def _reject_repeated(connection: asyncpg.Connection, kind: TableSpec, columns: tuple[str, ...]) -> None:
    names, here = ", ".join(columns), ", ".join(f"r.{name}" for name in columns)
    there = ", ".join(f"several.{name}" for name in columns)
    table, owner = get_staging_table(kind), kind.owner or columns[0]
    await statements.execute_quoted(
        connection, REJECT_REPEATED, names, table, names, names, table, here, there, owner, kind.name, names
    )


async def reject_erased(connection: asyncpg.Connection, subject: HashUserId) -> None:
    """Leave out who was erased here, as far as they were there before that: nobody comes back by a file."""
    erasures = {row["subject_hash"]: row["erased_at"] for row in await connection.fetch(ERASURES_QUERY)}
    if not erasures:
        return
    async for page in _iterate_pages(connection):
        gone = [
            row["user_id"]
            for row in page
            if (erased_at := erasures.get(subject(row["user_id"]))) is not None
            and (row["since"] is None or row["since"] <= erased_at)
        ]
        if gone:
            await connection.execute(INSERT_ERASED, gone)
    for kind in TABLE_SPECS:
        if kind.owner is not None:
            await statements.execute_quoted(connection, REJECT_ERASED, get_staging_table(kind), kind.owner, kind.name)
    await connection.execute(REJECT_ERASED_ADJUSTMENTS)
    await connection.execute(ANONYMISE_ERASED_MERGES)


async def _iterate_pages(connection: asyncpg.Connection) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(USERS_SINCE_QUERY)
    while page := await cursor.fetch(PAGE_SIZE):
        yield page


async def _reject_refused_users(connection: asyncpg.Connection) -> None:
    """Refuse all of a person of whom a row is refused: nobody is imported in part."""
    await connection.execute(CREATE_REFUSED, [kind.name for kind in USER_SPECS])
    if not await connection.fetchval(ANY_REFUSED_QUERY):
        return
    await connection.execute("ANALYZE refused")
    for kind in USER_SPECS:
        await statements.execute_quoted(connection, REJECT_REFUSED, get_staging_table(kind), kind.name)
