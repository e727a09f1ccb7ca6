"""Credits in PostgreSQL: rows of the ledger, reconciliation and idempotent responses."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import TextClause, text, update
from sqlmodel import col, select

from shopassist.credits.models import (
    AccountReconciliation,
    CreditPolicy,
    CreditTransaction,
    ReconciliationPage,
    UserCredits,
)
from shopassist.credits.ports import UNFILTERED, CompactionBatch, HistoryFilter, IdempotencyRecord, compact_all
from shopassist.credits.postgres.account_sql import ALLOW_COMPACTION, COMPACT_TRANSACTIONS
from shopassist.db.database import BaseRepository, DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.statements import fetch, fetch_without_deadline


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
        if filter_.transaction_type is not None:
            statement = statement.where(col(row.transaction_type) == filter_.transaction_type.value)
        if filter_.since is not None:
            statement = statement.where(col(row.timestamp) >= filter_.since)
        if filter_.until is not None:
            statement = statement.where(col(row.timestamp) < filter_.until)
        return list((await self.session.execute(statement)).scalars())

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        return await compact_all(self, days)

    async def compact_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> CompactionBatch:
        await self.session.execute(ALLOW_COMPACTION)
        parameters = {
            "instant": self.clock.instant(),
            "age": timedelta(days=days),
            "after_id": after_id,
            "limit": limit,
        }
        row = (await self.session.execute(COMPACT_TRANSACTIONS, parameters)).one()
        return CompactionBatch(row.compacted, row.last_id)


SELECT_ACCOUNT_PAGE = text("""
SELECT count(*) AS accounts, max(user_id) AS last_user_id
FROM (SELECT user_id FROM user_credits WHERE user_id > CAST(:after AS text) ORDER BY user_id LIMIT :limit) AS page
""")

# One statement reads one snapshot, which has each debit, settlement or compaction completely or not at all. The rules
# are in `AccountReconciliation.find_drifts`; the last condition only avoids sending accounts that satisfy them.
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


class PostgresLedgerReconciliation:
    """Implements `LedgerReconciliation`."""

    def __init__(self, manager: DatabaseManager) -> None:
        """Each statement runs in its own transaction."""
        self._manager = manager

    async def reconcile_page(self, after_user_id: str = "", limit: int = 5000) -> ReconciliationPage:
        [page] = await fetch_without_deadline(self._manager, SELECT_ACCOUNT_PAGE, after=after_user_id, limit=limit)
        last = page["last_user_id"] if page["accounts"] == limit else None
        rows = list(await fetch_without_deadline(self._manager, RECONCILE_ACCOUNTS, after=after_user_id, last=last))
        if last is None:
            rows += await fetch_without_deadline(self._manager, RECONCILE_ERASING_ACCOUNTS)
        results = [
            AccountReconciliation(
                user_id=row["user_id"],
                balance=row["balance"],
                held=row["held"],
                ledger=int(row["ledger"]),
                last_balance=row["last_balance"],
                open_holds=int(row["open_holds"]),
            )
            for row in rows
        ]
        drifts = tuple(drift for result in results for drift in result.find_drifts())
        return ReconciliationPage(page["accounts"], drifts, last)


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

DELETE_EXPIRED_IDEMPOTENT_ANSWERS = text("""
DELETE FROM idempotent_answers WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotent_answers
    WHERE expires_at < COALESCE(CAST(:instant AS timestamptz), now()) ORDER BY expires_at LIMIT :limit
)) RETURNING true
""")


class PostgresIdempotencyStore:
    """Implements `IdempotencyStore`."""

    def __init__(self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock) -> None:
        """`policy` gives the lifetime of a response."""
        self._manager = manager
        self._policy = policy
        self._clock = clock

    async def get(self, user_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        rows = await self._run(SELECT_IDEMPOTENT_ANSWER, user_id=user_id, idempotency_key=idempotency_key)
        return IdempotencyRecord(*rows[0].values()) if rows else None

    async def store(self, record: IdempotencyRecord) -> None:
        await self._run(
            UPSERT_IDEMPOTENT_ANSWER,
            user_id=record.user_id,
            idempotency_key=record.idempotency_key,
            request_hash=record.request_hash,
            response=json.dumps(record.response, allow_nan=False),
            replay_lifetime=self._policy.replay_lifetime,
        )

    async def delete_expired(self, limit: int = 1000) -> int:
        return len(await self._run(DELETE_EXPIRED_IDEMPOTENT_ANSWERS, limit=limit))

    async def _run(self, statement: TextClause, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, repeatable=True, instant=self._clock.instant(), **parameters)
