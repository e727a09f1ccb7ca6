"""Copies a snapshot into temporary tables, and checks its rows as a whole."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import URL

from shopassist.db.migrate import connect
from shopassist.db.statements import execute_quoted
from shopassist.errors import StateError
from shopassist.identity.key_derivation import UserHasher
from shopassist.ops.snapshot.file import SESSION_SETTINGS, ReportProgress, Snapshot
from shopassist.ops.snapshot.tables import (
    SPECS_BY_NAME,
    TABLE_SPECS,
    USER_SPECS,
    Record,
    RejectedRow,
    TableSpec,
    format_names,
    validate_rows,
)

OTHER_KEY_MESSAGE = (
    "{} was made under another SECRET_KEY: users who were erased could not be recognised. Set the SECRET_KEY that the "
    "servers had then."
)
NOT_OWNER_MESSAGE = "This needs the owner of the tables: set DATABASE_MIGRATION_URL to the owner's link."
PAGE_SIZE = 10_000

TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
SET_MEMORY = """
SELECT set_config('work_mem', '128MB', true), set_config('maintenance_work_mem', '512MB', true)
"""
CREATE_RESULT_TABLES = """
CREATE TEMPORARY TABLE rejected (line bigint NOT NULL, kind text, owner text, reason text NOT NULL);
CREATE TEMPORARY TABLE erased (user_id text PRIMARY KEY)
"""
CREATE_STAGING_TABLE = "CREATE TEMPORARY TABLE %I (%s)"

NUL_ERRORS = asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError
NUL_REASON = "a text has the NUL character"

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
USING (SELECT %s, min(line) AS first FROM %s WHERE (%s) IS NOT NULL GROUP BY %s HAVING count(*) > 1) r
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
ERASED_CONDITION = "USING erased e WHERE e.user_id = %s"
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
# The second event of a line gets a line number behind the end of the file.
INSERT_EARLIER_RECORDS = """
INSERT INTO staged_consent_events (line, user_id, is_guest, purpose, granted, source, "timestamp")
WITH records AS MATERIALIZED (
    SELECT c.* FROM staged_user_consents c
    WHERE NOT EXISTS (SELECT FROM staged_consent_events e WHERE e.user_id = c.user_id AND NOT e.is_guest)
)
SELECT line, user_id, false, 'terms', terms_accepted, 'earlier_record', "timestamp" FROM records
UNION ALL
SELECT line + $1, user_id, false, 'marketing', true, 'earlier_record', updated_at FROM records WHERE marketing_consent
"""

CREATE_USERS = """
CREATE TEMPORARY TABLE users AS
SELECT row_number() OVER (ORDER BY user_id) AS number, user_id FROM (
    SELECT user_id FROM staged_user_credits UNION SELECT user_id FROM staged_user_consents
    UNION SELECT user_id FROM staged_consent_events
) AS all_users
"""
OF_USERS = "user_id IN (SELECT user_id FROM users)"

# Parameters, for the staged table and for the table of the database: key, credits, columns, table, condition.
COMPARED_KEYS = """(
    SELECT %s AS key, count(*) AS rows, sum(%s) AS credits, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM %s WHERE %s GROUP BY 1
) AS f FULL JOIN (
    SELECT %s AS key, count(*) AS rows, sum(%s) AS credits, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM %s WHERE %s GROUP BY 1
) AS d USING (key)
"""
DIFFERS = "(f.rows, f.hash) IS DISTINCT FROM (d.rows, d.hash)"


@asynccontextmanager
async def open_session(dsn: URL, lock_key: int) -> AsyncIterator[asyncpg.Connection]:
    """Connect and hold an advisory lock. Raises `StateError` if another process holds it."""
    async with connect(dsn) as connection:
        await connection.execute(SESSION_SETTINGS)
        if not await connection.fetchval(TRY_LOCK, lock_key):
            raise StateError("Another process is at it on this database: wait until it has ended.")
        try:
            yield connection
        except asyncpg.InsufficientPrivilegeError:
            raise StateError(NOT_OWNER_MESSAGE) from None


async def stage_snapshot(
    connection: asyncpg.Connection, snapshot: Snapshot, hash_user_id: UserHasher, report: ReportProgress
) -> None:
    """Copy the rows of a file into temporary tables, without those that an import rejects, and list their users.

    Raises `StateError` if the file was written under another secret key.
    """
    if snapshot.header.key not in {None, hash_user_id.fingerprint}:
        raise StateError(OTHER_KEY_MESSAGE.format(snapshot.path))
    await connection.execute(CREATE_RESULT_TABLES)
    for spec in TABLE_SPECS:
        await execute_quoted(connection, CREATE_STAGING_TABLE, spec.staging_table, spec.format_staging_columns())
    done = snapshot.start
    for first_line, chunk in snapshot.read_chunks():
        records, rejected = validate_rows(chunk, first_line, accept_hashed=snapshot.header.key is not None)
        for name, rows in records.items():
            rejected += await _copy_records(connection, SPECS_BY_NAME[name], rows)
        await connection.copy_records_to_table("rejected", columns=RejectedRow._fields, records=rejected)
        done += len(chunk)
        report("checking and copying rows", done, snapshot.stop)
    await _check_staged(connection, snapshot.lines, hash_user_id, report)


async def _copy_records(
    connection: asyncpg.Connection, spec: TableSpec, records: Sequence[Record]
) -> list[RejectedRow]:
    """Copy records and return those that PostgreSQL rejects, which are found by bisection."""
    columns = spec.copied_columns
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(spec.staging_table, columns=columns, records=records)
    except asyncpg.DataError as error:
        if len(records) == 1:
            row = dict(zip(columns, records[0], strict=True))
            owner = row[spec.owner] if spec.owner and "\x00" not in (row[spec.owner] or "") else None
            reason = NUL_REASON if isinstance(error, NUL_ERRORS) else str(error).partition("\n")[0]
            return [RejectedRow(row["line"], spec.name, owner, reason)]
        half = len(records) // 2
        first, second = records[:half], records[half:]
        return [*await _copy_records(connection, spec, first), *await _copy_records(connection, spec, second)]
    return []


async def _check_staged(
    connection: asyncpg.Connection, lines: int, hash_user_id: UserHasher, report: ReportProgress
) -> None:
    """Reject rows that contradict each other, and add rows that older files leave out; in one transaction.

    `lines` is the number of lines in the file.
    """
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        for spec in TABLE_SPECS:
            await execute_quoted(connection, "ANALYZE %I", spec.staging_table)
        report("rules of the tables")
        for spec in TABLE_SPECS:
            for constraint in await connection.fetch(CONSTRAINTS_QUERY, spec.name):
                await _reject(connection, spec, constraint["condition"], _get_owner(spec), constraint["reason"])
            for columns in spec.unique:
                names, own, first = (format_names(columns, alias) for alias in (None, "s", "r"))
                condition = REPEATED_CONDITION % (names, spec.staging_table, names, names, own, first)
                reason = f"'repeats line ' || r.first || ' ({', '.join(columns)})'"
                await _reject(connection, spec, condition, _get_owner(spec), reason)
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
        await connection.execute(INSERT_EARLIER_RECORDS, lines)
        await connection.execute(CREATE_USERS)
        await connection.execute("ANALYZE users")


def _get_owner(spec: TableSpec) -> str:
    return f's."{spec.owner}"' if spec.owner else "NULL"


async def _reject(connection: asyncpg.Connection, spec: TableSpec, condition: str, owner: str, reason: str) -> None:
    """Move the rows that match a condition from the staging table to `rejected`."""
    await execute_quoted(connection, REJECT, spec.staging_table, condition, owner, reason, spec.name)


async def reject_erased(connection: asyncpg.Connection, hash_user_id: UserHasher) -> None:
    """Reject the rows of users who were erased here, if the rows are older than the erasure."""
    erasures = {row["subject_hash"]: row["erased_at"] for row in await connection.fetch(ERASURES_QUERY)}
    if not erasures:
        return
    cursor = await connection.cursor(USERS_SINCE_QUERY)
    while page := await cursor.fetch(PAGE_SIZE):
        erased = [
            row["user_id"]
            for row in page
            if (erased_at := erasures.get(hash_user_id(row["user_id"]))) is not None
            and (row["since"] is None or row["since"] <= erased_at)
        ]
        await connection.execute(INSERT_ERASED, erased)
    owners = [(spec, _get_owner(spec)) for spec in TABLE_SPECS if spec.owner is not None]
    for spec, owner in [*owners, (SPECS_BY_NAME["idempotent_answers"], "s.response ->> 'user_id'")]:
        await _reject(connection, spec, ERASED_CONDITION % owner, "NULL", "'the person was erased'")
    await connection.execute(ANONYMISE_ERASED_MERGES)


def format_compared_keys(spec: TableSpec, key: str, in_file: str, in_database: str) -> str:
    """Return the FROM clause that compares the staged rows (`f`) and those of the database (`d`) by key.

    `in_file` and `in_database` are the conditions of the rows.
    """
    values = key, spec.credits_sql or "NULL::bigint", spec.format_columns()
    return COMPARED_KEYS % (*values, f'"{spec.staging_table}"', in_file, *values, f'public."{spec.name}"', in_database)
