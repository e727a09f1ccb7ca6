"""The rows behind the ledger, in PostgreSQL."""

from datetime import timedelta
from typing import Any

from sqlalchemy import text, update
from sqlmodel import col, select

from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import CreditTransaction, UserCredits

# The ledger's trigger lets changes pass in a transaction that says so.
ALLOW_FOLDING = text("SELECT set_config('shopassist.ledger_maintenance', 'on', true)")

# The newest row of a user that is old enough becomes the opening row: its balance_after is the sum of all it absorbs.
FOLD = text("""
WITH old AS (
    SELECT id, transaction_type, balance_after, max(id) OVER (PARTITION BY user_id) AS newest
    FROM credit_transactions
    WHERE "timestamp" < COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:age AS interval)
), folded AS (
    SELECT * FROM old WHERE id <> newest OR transaction_type <> 'opening'
), opened AS (
    UPDATE credit_transactions t
    SET transaction_type = 'opening', amount = t.balance_after, description = 'Balance of older transactions',
        operation_id = NULL
    WHERE t.id = ANY(ARRAY(SELECT id FROM folded WHERE id = newest AND balance_after <> 0))
), removed AS (
    DELETE FROM credit_transactions t
    WHERE t.id = ANY(ARRAY(SELECT id FROM folded WHERE id <> newest OR balance_after = 0))
)
SELECT count(*) FROM folded
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
            newest = await self.get_user_transactions(transaction.user_id, limit=1)
            transaction.balance_after = transaction.amount + (newest[0].balance_after if newest else 0)
        self.session.add(transaction)
        await self.session.flush()
        return transaction

    async def get_user_transactions(
        self, user_id: str, limit: int = 100, before_id: int | None = None
    ) -> list[CreditTransaction]:
        statement = (
            select(CreditTransaction)
            .where(col(CreditTransaction.user_id) == user_id)
            .order_by(col(CreditTransaction.id).desc())
            .limit(limit)
        )
        if before_id is not None:
            statement = statement.where(col(CreditTransaction.id) < before_id)
        return list((await self.session.execute(statement)).scalars())

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        await self.session.execute(ALLOW_FOLDING)
        result = await self.session.execute(FOLD, {"instant": self.clock.instant(), "age": timedelta(days=days)})
        return int(result.scalar_one())
