"""Credits in PostgreSQL: rows of the ledger, reconciliation and idempotent responses."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import TextClause, text, update
from sqlmodel import col, select

from shopassist.credits.models import CreditPolicy, CreditTransaction, ReconciliationPage, UserCredits, find_drifts
from shopassist.credits.ports import UNFILTERED, CompactionBatch, HistoryFilter, IdempotencyRecord, compact_all
from shopassist.credits.postgres.statements import DELETE_EXPIRED_IDEMPOTENT_ANSWERS
from shopassist.db.database import BaseRepository, DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.statements import fetch, fetch_without_deadline

# The ledger's trigger allows changes in a transaction with this setting. The lock admits one compaction at a time: two
# of the same rows would deadlock. Transactions that only add rows do not wait for it.
ALLOW_COMPACTION = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       pg_advisory_xact_lock(hashtextextended('shopassist.ledger_maintenance', 0))
""")

# A user's newest row that is old enough becomes the opening row of all rows up to it. Its amount is their sum rather
# than its own balance_after, so that the sum of the ledger does not change even if a balance_after is wrong. The join
# reads a few users through (user_id, id), never the whole table. A lone opening row is not compacted again.
COMPACT_TRANSACTIONS = text("""
WITH batch AS MATERIALIZED (
    SELECT id, user_id,
           "timestamp" < COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:age AS interval) AS is_old
    FROM credit_transactions WHERE id > CAST(:after_id AS bigint) ORDER BY id LIMIT CAST(:limit AS bigint)
), last_old AS MATERIALIZED (
    SELECT user_id, max(id) AS id FROM batch WHERE is_old GROUP BY user_id
), compacted AS MATERIALIZED (
    SELECT n.id, before.*
    FROM last_old n CROSS JOIN LATERAL (
        SELECT array_agg(t.id) AS ids, sum(t.amount) AS total,
               count(*) FILTER (WHERE t.transaction_type <> 'opening') AS rows
        FROM credit_transactions t WHERE t.user_id = n.user_id AND t.id <= n.id
    ) AS before
    WHERE before.rows > 0
), opened AS (
    UPDATE credit_transactions t
    SET transaction_type = 'opening', amount = c.total, description = 'Balance of older transactions',
        operation_id = NULL, actor = NULL
    FROM compacted c WHERE t.id = c.id AND c.total <> 0
), removed AS (
    DELETE FROM credit_transactions t
    WHERE t.id = ANY(ARRAY(
        SELECT u.id FROM compacted c, unnest(c.ids) AS u(id) WHERE u.id <> c.id OR c.total = 0
    ))
)
SELECT (SELECT COALESCE(sum(rows), 0) FROM compacted) AS compacted,
       (SELECT max(id) FROM batch HAVING bool_or(is_old)) AS last_id
""")


class PostgresCreditRepository(BaseRepository):
    """Implements `CreditRepository`."""

    async def get_user_credits(self, user_id: str) -> UserCredits | None:
        return await self.session.get(UserCredits, user_id)

    async def create_user_credits(self, account: UserCredits) -> UserCredits:
        self.session.add(account)
        await self.session.flush()
        return account

    async def update_user_credits(self, user_id: str, **updates: Any) -> UserCredits | None:
        statement = (
            update(UserCredits)
            .where(col(UserCredits.user_id) == user_id)
            .values(**updates, updated_at=self.now())
            .returning(UserCredits)
            .execution_options(populate_existing=True)
        )
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def create_transaction(self, transaction: CreditTransaction) -> CreditTransaction:
        if getattr(transaction, "balance_after", None) is None:
            last = await self.get_user_transactions(transaction.user_id, limit=1)
            transaction.balance_after = transaction.amount + (last[0].balance_after if last else 0)
        self.session.add(transaction)
        await self.session.flush()
        return transaction

    async def get_user_transactions(
        self, user_id: str, limit: int = 100, before_id: int | None = None, filter_: HistoryFilter = UNFILTERED
    ) -> list[CreditTransaction]:
        row = CreditTransaction
        statement = select(row).where(col(row.user_id) == user_id).order_by(col(row.id).desc()).limit(limit)
        if before_id is not None:
            statement = statement.where(col(row.id) < before_id)
        return list((await self.session.execute(statement.where(*filter_.build_conditions(row)))).scalars())

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        return await compact_all(self, days)

    async def compact_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> CompactionBatch:
        await self.session.execute(ALLOW_COMPACTION)
        age, instant = timedelta(days=days), self.clock.instant()
        parameters = {"instant": instant, "age": age, "after_id": after_id, "limit": limit}
        return CompactionBatch(*(await self.session.execute(COMPACT_TRANSACTIONS, parameters)).one())


SELECT_ACCOUNT_PAGE = text("""
SELECT count(*) AS accounts, max(user_id) AS last_user_id
FROM (SELECT user_id FROM user_credits WHERE user_id > CAST(:after AS text) ORDER BY user_id LIMIT :limit) AS page
""")

# One statement reads one snapshot, which has each debit, settlement or compaction completely or not at all. The rules
# are in `find_drifts`; the last condition only avoids sending accounts that satisfy them.
RECONCILE_ACCOUNTS = text("""
WITH account AS (
    SELECT user_id, CAST(available_credits AS bigint) + held_credits AS balance, held_credits AS held
    FROM user_credits
    WHERE user_id > CAST(:after AS text) AND (CAST(:last AS text) IS NULL OR user_id <= CAST(:last AS text))
), ledger AS (
    SELECT user_id, sum(amount) AS total, (array_agg(balance_after ORDER BY id DESC))[1] AS last_balance
    FROM credit_transactions
    WHERE user_id > CAST(:after AS text) AND (CAST(:last AS text) IS NULL OR user_id <= CAST(:last AS text))
    GROUP BY user_id
), open_hold AS (
    SELECT user_id, sum(amount) AS total
    FROM credit_holds
    WHERE user_id > CAST(:after AS text) AND (CAST(:last AS text) IS NULL OR user_id <= CAST(:last AS text))
    GROUP BY user_id
)
SELECT user_id, a.balance, COALESCE(a.held, 0) AS held, COALESCE(l.total, 0) AS ledger, l.last_balance,
       COALESCE(h.total, 0) AS open_holds
FROM account a FULL JOIN ledger l USING (user_id) FULL JOIN open_hold h USING (user_id)
WHERE (a.balance IS DISTINCT FROM COALESCE(l.total, 0) OR COALESCE(a.held, 0) <> COALESCE(h.total, 0)
       OR l.last_balance <> l.total)
  AND NOT EXISTS (
      SELECT FROM erasures e
      WHERE e.finished_at IS NULL AND (e.user_id = COALESCE(a.user_id, l.user_id, h.user_id)
                                       OR e.pseudonym = COALESCE(a.user_id, l.user_id, h.user_id))
  )
ORDER BY user_id
""")

# While an account is being erased, its rows move to a pseudonym in several transactions: the two count as one account.
RECONCILE_ERASING_ACCOUNTS = text("""
SELECT e.pseudonym AS user_id, CAST(a.available_credits AS bigint) + a.held_credits AS balance,
       COALESCE(a.held_credits, 0) AS held, COALESCE(l.total, 0) AS ledger, l.last_balance,
       COALESCE(h.total, 0) AS open_holds
FROM erasures e LEFT JOIN user_credits a ON a.user_id = e.pseudonym
CROSS JOIN LATERAL (
    SELECT sum(amount) AS total, (array_agg(balance_after ORDER BY id DESC))[1] AS last_balance
    FROM credit_transactions WHERE user_id = e.user_id OR user_id = e.pseudonym
) AS l
CROSS JOIN LATERAL (SELECT sum(amount) AS total FROM credit_holds WHERE user_id = e.user_id) AS h
WHERE e.finished_at IS NULL AND e.had_account
ORDER BY e.pseudonym
""")


@dataclass(slots=True)
class PostgresLedgerReconciliation:
    """Implements `LedgerReconciliation`. Each statement runs in its own transaction."""

    manager: DatabaseManager

    async def reconcile_page(self, after_user_id: str = "", limit: int = 5000) -> ReconciliationPage:
        [page] = await fetch_without_deadline(self.manager, SELECT_ACCOUNT_PAGE, after=after_user_id, limit=limit)
        last = page["last_user_id"] if page["accounts"] == limit else None
        rows = list(await fetch_without_deadline(self.manager, RECONCILE_ACCOUNTS, after=after_user_id, last=last))
        if last is None:
            rows += await fetch_without_deadline(self.manager, RECONCILE_ERASING_ACCOUNTS)
        return ReconciliationPage(page["accounts"], tuple(drift for row in rows for drift in find_drifts(*row)), last)


SELECT_IDEMPOTENT_ANSWER = text("""
SELECT user_id, idempotency_key, request_hash, response FROM idempotent_answers
WHERE user_id = :user_id AND idempotency_key = :idempotency_key
  AND expires_at >= COALESCE(CAST(:instant AS timestamptz), now())
""")

# Nothing is stored if the account was erased meanwhile.
UPSERT_IDEMPOTENT_ANSWER = text("""
INSERT INTO idempotent_answers AS a (user_id, idempotency_key, request_hash, response, expires_at)
SELECT user_id, :idempotency_key, :request_hash, CAST(:response AS jsonb),
       COALESCE(CAST(:instant AS timestamptz), now()) + CAST(:replay_lifetime AS interval)
FROM user_credits WHERE user_id = CAST(:user_id AS text) FOR KEY SHARE
ON CONFLICT (user_id, idempotency_key) DO UPDATE
SET request_hash = excluded.request_hash, response = excluded.response, expires_at = excluded.expires_at
WHERE a.expires_at < COALESCE(CAST(:instant AS timestamptz), now())
""")


@dataclass(slots=True)
class PostgresIdempotencyStore:
    """Implements `IdempotencyStore`. `policy` gives the lifetime of a response."""

    manager: DatabaseManager
    policy: CreditPolicy
    clock: Clock

    async def get(self, user_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        rows = await self._run(SELECT_IDEMPOTENT_ANSWER, user_id=user_id, idempotency_key=idempotency_key)
        return IdempotencyRecord(*rows[0]) if rows else None

    async def store(self, record: IdempotencyRecord) -> None:
        await self._run(
            UPSERT_IDEMPOTENT_ANSWER,
            user_id=record.user_id,
            idempotency_key=record.idempotency_key,
            request_hash=record.request_hash,
            response=json.dumps(record.response, allow_nan=False),
            replay_lifetime=self.policy.replay_lifetime,
        )

    async def delete_expired(self, limit: int = 1000) -> int:
        return len(await self._run(DELETE_EXPIRED_IDEMPOTENT_ANSWERS, limit=limit))

    async def _run(self, statement: TextClause, **parameters: Any) -> Sequence[Any]:
        return await fetch(self.manager, statement, repeatable=True, instant=self.clock.instant(), **parameters)
