"""The rows behind the ledger, in PostgreSQL."""

from datetime import timedelta
from typing import Any

from sqlalchemy import update
from sqlmodel import col, select

from shopassist.db.postgres.fold_statements import ALLOW_FOLDING, FOLD
from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import CreditTransaction, UserCredits
from shopassist.models.ledger import EVERYTHING, Fold, HistoryFilter


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
        self,
        user_id: str,
        limit: int = 100,
        before_id: int | None = None,
        wanted: HistoryFilter = EVERYTHING,
    ) -> list[CreditTransaction]:
        row = CreditTransaction
        statement = select(row).where(col(row.user_id) == user_id).order_by(col(row.id).desc()).limit(limit)
        if before_id is not None:
            statement = statement.where(col(row.id) < before_id)
        if wanted.transaction_type is not None:
            statement = statement.where(col(row.transaction_type) == wanted.transaction_type.value)
        if wanted.since is not None:
            statement = statement.where(col(row.timestamp) >= wanted.since)
        if wanted.until is not None:
            statement = statement.where(col(row.timestamp) < wanted.until)
        return list((await self.session.execute(statement)).scalars())

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        folded, last_id = 0, 0
        while True:
            fold = await self.fold_transactions(days, last_id)
            folded += fold.folded
            if fold.last_id is None:
                return folded
            last_id = fold.last_id

    async def fold_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> Fold:
        await self.session.execute(ALLOW_FOLDING)
        parameters = {
            "instant": self.clock.instant(),
            "age": timedelta(days=days),
            "after_id": after_id,
            "limit": limit,
        }
        row = (await self.session.execute(FOLD, parameters)).one()
        return Fold(row.folded, row.last_id)
