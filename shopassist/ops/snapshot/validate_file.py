"""Validates staged rows as a whole: constraints, references, sums and erased users."""

from collections.abc import AsyncIterator, Callable

import asyncpg

from shopassist.db import statements
from shopassist.ops.snapshot.tables import SPECS_BY_NAME, TABLE_SPECS, USER_SPECS, TableSpec, format_names

HashUserId = Callable[[str], str]
ReportStep = Callable[[str], object]
PAGE_SIZE = 10_000

SET_MEMORY = """
SELECT set_config('work_mem', '128MB', true), set_config('maintenance_work_mem', '512MB', true)
"""

# Parameters: staging table, condition, owner, reason, kind.
REJECT = """
WITH removed AS (DELETE FROM %I s %s RETURNING s.line, %s AS owner, %s AS reason)
INSERT INTO rejected (line, kind, owner, reason) SELECT line, %L, owner, reason FROM removed
"""

# The CHECK constraints of the tables, as PostgreSQL knows them.
CONSTRAINTS_QUERY = """
SELECT 'WHERE NOT (' || pg_get_expr(conbin, conrelid) || ')' AS condition,
       quote_literal('breaks the rule ' || conname) AS reason
FROM pg_constraint WHERE contype = 'c' AND conrelid = to_regclass('public.' || quote_ident($1))
"""

# Parameters: columns, staging table, columns, columns, columns of s, columns of r.
REPEATED_CONDITION = """
USING (SELECT %s, min(line) AS first FROM %I WHERE (%s) IS NOT NULL GROUP BY %s HAVING count(*) > 1) r
WHERE (%s) = (%s) AND s.line > r.first
"""

NO_ACCOUNT = (
    "WHERE NOT EXISTS (SELECT FROM staged_user_credits c WHERE c.user_id = s.user_id)",
    "s.user_id",
    "'its account is not in the file, or is refused'",
)
REFERENCE_CHECKS = (
    (
        "consent_notices",
        """USING public.consent_notices n
        WHERE (n.purpose, n.version, n.locale) = (s.purpose, s.version, s.locale) AND n.sha256 <> s.sha256""",
        "NULL",
        "'is there already, with other words'",
    ),
    (
        "consent_events",
        """WHERE notice_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM staged_consent_notices n WHERE n.id = s.notice_id AND n.purpose = s.purpose)""",
        "s.user_id",
        "'its notice is not in the file, or of another purpose'",
    ),
    ("credit_transactions", *NO_ACCOUNT),
    ("credit_holds", *NO_ACCOUNT),
)
"""Table, condition of the rejected rows, owner and reason."""

# The newest balance is found without sorting: the highest line number, with the balance in the lower 32 bits.
CREATE_LEDGERS = """
CREATE TEMPORARY TABLE ledgers ON COMMIT DROP AS
SELECT user_id, sum(amount) AS total, max((line << 32) | (COALESCE(balance_after, 0)::bigint & 4294967295)) AS newest,
       bool_or(balance_after IS NULL) AS unbalanced
FROM staged_credit_transactions GROUP BY user_id
"""
CREATE_WRONG_SUMS = """
CREATE TEMPORARY TABLE wrong_sums ON COMMIT DROP AS
SELECT c.line, CASE
    WHEN l.total <> c.available_credits::bigint + c.held_credits THEN
        'available and held credits are ' || c.available_credits::bigint + c.held_credits
        || ', the sum of its transactions is ' || l.total
    WHEN COALESCE(h.total, 0) <> c.held_credits THEN
        'held credits are ' || c.held_credits || ', the sum of its holds is ' || COALESCE(h.total, 0)
    WHEN NOT l.unbalanced AND (l.newest & 4294967295) <> (l.total::bigint & 4294967295) THEN
        'the balance after its newest transaction is not the sum of them, ' || l.total
    END AS reason
FROM staged_user_credits c LEFT JOIN ledgers l USING (user_id)
LEFT JOIN (SELECT user_id, sum(amount) AS total FROM staged_credit_holds GROUP BY user_id) AS h USING (user_id)
"""
WRONG_SUM_CONDITION = "USING wrong_sums w WHERE w.line = s.line AND w.reason IS NOT NULL"

ERASURES_QUERY = "SELECT subject_hash, max(requested_at) AS erased_at FROM public.erasures GROUP BY subject_hash"
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
) AS mentions WHERE user_id IS NOT NULL GROUP BY user_id
"""
INSERT_ERASED = "INSERT INTO erased (user_id) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING"
ERASED_REASON = "'the person was erased'"
ERASED_ADJUSTMENT_CONDITION = "USING erased e WHERE e.user_id = s.response ->> 'user_id'"
ANONYMISE_ERASED_MERGES = "UPDATE staged_guest_merges s SET user_id = NULL FROM erased e WHERE e.user_id = s.user_id"

CREATE_REFUSED = """
CREATE TEMPORARY TABLE refused ON COMMIT DROP AS
SELECT owner AS user_id, min(line) AS line FROM rejected
WHERE owner IS NOT NULL AND kind = ANY($1::text[]) GROUP BY owner
"""
REFUSED_CONDITION = "USING refused r WHERE r.user_id = s.user_id"
REFUSED_REASON = "'line ' || r.line || ' of the same person is refused'"

# Accounts that are older than the ledger. Without credits they need no transaction, because its amount may not be 0.
INSERT_INITIAL_BALANCES = """
INSERT INTO staged_credit_transactions
    (line, user_id, transaction_type, amount, "timestamp", description, balance_after)
SELECT c.line, c.user_id, 'opening', c.available_credits + c.held_credits, c.created_at, 'Opening balance',
       c.available_credits + c.held_credits
FROM staged_user_credits c
WHERE c.available_credits + c.held_credits > 0 AND NOT EXISTS (SELECT FROM ledgers l WHERE l.user_id = c.user_id)
"""
UPDATE_BALANCES = """
UPDATE staged_credit_transactions t SET balance_after = b.balance
FROM (
    SELECT line, sum(amount) OVER (PARTITION BY user_id ORDER BY line) AS balance FROM staged_credit_transactions
    WHERE user_id IN (SELECT user_id FROM ledgers WHERE unbalanced)
) AS b
WHERE b.line = t.line AND t.balance_after IS NULL
"""

# As the migration that began the consent history: a record without marketing consent is no decision about marketing.
# The second event of a line gets a line number behind the end of the file. The records are copied into a table of
# their own, because a statement must not read the rows that it inserts.
CREATE_RECORDS_WITHOUT_EVENTS = """
CREATE TEMPORARY TABLE records_without_events ON COMMIT DROP AS
SELECT c.* FROM staged_user_consents c
WHERE NOT EXISTS (SELECT FROM staged_consent_events e WHERE e.user_id = c.user_id AND NOT e.is_guest)
"""
INSERT_EARLIER_RECORDS = """
INSERT INTO staged_consent_events (line, user_id, is_guest, purpose, granted, source, "timestamp")
SELECT line, user_id, false, 'terms', terms_accepted, 'earlier_record', "timestamp" FROM records_without_events
UNION ALL
SELECT line + $1, user_id, false, 'marketing', true, 'earlier_record', updated_at FROM records_without_events
WHERE marketing_consent
"""


async def validate_staged(
    connection: asyncpg.Connection, lines: int, hash_user_id: HashUserId, report: ReportStep
) -> None:
    """Reject rows that contradict each other, and add rows that older files leave out; in one transaction.

    `lines` is the number of lines in the file.
    """
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        for spec in TABLE_SPECS:
            await statements.execute_quoted(connection, "ANALYZE %I", spec.staging_table)
        report("rules of the tables")
        for spec in TABLE_SPECS:
            for constraint in await connection.fetch(CONSTRAINTS_QUERY, spec.name):
                await _reject(connection, spec, constraint["condition"], _get_owner(spec), constraint["reason"])
            for columns in spec.unique:
                await _reject_repeated(connection, spec, columns)
        report("references and sums")
        for name, condition, owner, reason in REFERENCE_CHECKS:
            await _reject(connection, SPECS_BY_NAME[name], condition, owner, reason)
        await connection.execute(CREATE_LEDGERS)
        await connection.execute("ANALYZE ledgers")
        await connection.execute(CREATE_WRONG_SUMS)
        await _reject(connection, SPECS_BY_NAME["user_credits"], WRONG_SUM_CONDITION, "s.user_id", "w.reason")
        report("people who were erased")
        await reject_erased(connection, hash_user_id)
        await connection.execute(CREATE_REFUSED, [spec.name for spec in USER_SPECS])
        await connection.execute("ANALYZE refused")
        for spec in USER_SPECS:  # a user is imported completely or not at all
            await _reject(connection, spec, REFUSED_CONDITION, "s.user_id", REFUSED_REASON)
        report("what older files leave out")
        await connection.execute(INSERT_INITIAL_BALANCES)
        await connection.execute(UPDATE_BALANCES)
        await connection.execute(CREATE_RECORDS_WITHOUT_EVENTS)
        await connection.execute(INSERT_EARLIER_RECORDS, lines)


def _get_owner(spec: TableSpec) -> str:
    return f's."{spec.owner}"' if spec.owner else "NULL"


async def _reject(connection: asyncpg.Connection, spec: TableSpec, condition: str, owner: str, reason: str) -> None:
    """Move the rows that match a condition from the staging table to `rejected`."""
    await statements.execute_quoted(connection, REJECT, spec.staging_table, condition, owner, reason, spec.name)


async def _reject_repeated(connection: asyncpg.Connection, spec: TableSpec, columns: tuple[str, ...]) -> None:
    names = format_names(columns)
    parts = names, spec.staging_table, names, names, format_names(columns, "s"), format_names(columns, "r")
    condition = await connection.fetchval(statements.FORMAT_QUERY, REPEATED_CONDITION, parts)
    reason = f"'repeats line ' || r.first || ' ({', '.join(columns)})'"
    await _reject(connection, spec, condition, _get_owner(spec), reason)


async def reject_erased(connection: asyncpg.Connection, hash_user_id: HashUserId) -> None:
    """Reject the rows of users who were erased here, if the rows are older than the erasure."""
    erasures = {row["subject_hash"]: row["erased_at"] for row in await connection.fetch(ERASURES_QUERY)}
    if not erasures:
        return
    async for page in _read_users(connection):
        erased = [
            row["user_id"]
            for row in page
            if (erased_at := erasures.get(hash_user_id(row["user_id"]))) is not None
            and (row["since"] is None or row["since"] <= erased_at)
        ]
        await connection.execute(INSERT_ERASED, erased)
    for spec in TABLE_SPECS:
        if spec.owner is not None:
            condition = f"USING erased e WHERE e.user_id = {_get_owner(spec)}"
            await _reject(connection, spec, condition, "NULL", ERASED_REASON)
    answers = SPECS_BY_NAME["idempotent_answers"]
    await _reject(connection, answers, ERASED_ADJUSTMENT_CONDITION, "NULL", ERASED_REASON)
    await connection.execute(ANONYMISE_ERASED_MERGES)


async def _read_users(connection: asyncpg.Connection) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(USERS_SINCE_QUERY)
    while page := await cursor.fetch(PAGE_SIZE):
        yield page
