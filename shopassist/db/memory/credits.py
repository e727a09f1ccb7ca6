"""The rows behind the ledger, in memory."""

from datetime import timedelta
from typing import Any

from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.errors import IntegrityError
from shopassist.models import CreditTransaction, TransactionType, UserCredits
from shopassist.models.ledger import EVERYTHING, Fold, HistoryFilter


class MemoryCreditRepository(BaseRepository):
    """Implements `CreditRepository`."""

    async def get_user_credits(self, user_id: str) -> UserCredits | None:
        account = self.store.accounts.get(user_id)
        return account and copied(account)

    async def create_user_credits(self, account: UserCredits) -> UserCredits:
        if account.user_id in self.store.accounts:
            raise IntegrityError
        self.session.put(self.store.accounts, account.user_id, copied(checked(account)))
        return account

    async def update_user_credits(self, user_id: str, **updates: Any) -> UserCredits | None:
        account = self.store.accounts.get(user_id)
        if account is None:
            return None
        changed = checked(copied(account, **updates, updated_at=self.store.now()))
        self.session.put(self.store.accounts, user_id, changed)
        return copied(changed)

    async def create_transaction(self, transaction: CreditTransaction) -> CreditTransaction:
        if transaction.amount == 0:
            raise IntegrityError
        if getattr(transaction, "balance_after", None) is None:
            newest = await self.get_user_transactions(transaction.user_id, limit=1)
            transaction.balance_after = transaction.amount + (newest[0].balance_after if newest else 0)
        transaction.id = self.store.next_id("credit_transactions")
        self.session.put(self.store.transactions, transaction.id, copied(transaction))
        return transaction

    async def get_user_transactions(
        self,
        user_id: str,
        limit: int = 100,
        before_id: int | None = None,
        wanted: HistoryFilter = EVERYTHING,
    ) -> list[CreditTransaction]:
        rows = sorted(self.store.transactions.of(user_id).items(), reverse=True)
        mine = [row for key, row in rows if before_id is None or key < before_id]
        return [copied(row) for row in mine if wanted.wants(row)][:limit]

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        folded, last_id = 0, 0
        while True:
            fold = await self.fold_transactions(days, last_id)
            folded += fold.folded
            if fold.last_id is None:
                return folded
            last_id = fold.last_id

    async def fold_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> Fold:
        cutoff = self.store.ago(timedelta(days=days))
        seen = sorted(key for key in self.store.transactions if key > after_id)[:limit]
        rows = [(key, self.store.transactions[key]) for key in seen]
        newest = {row.user_id: key for key, row in rows if row.timestamp < cutoff}
        folded = sum(self._fold(user_id, key) for user_id, key in newest.items())
        return Fold(folded, seen[-1] if newest else None)

    def _fold(self, user_id: str, newest: int) -> int:
        """Make the row `newest` the opening row of all before it; how many transactions it absorbed, itself too."""
        rows = {k: row for k, row in self.store.transactions.of(user_id).items() if k <= newest}
        folded = sum(row.transaction_type != TransactionType.OPENING for row in rows.values())
        if not folded:
            return 0
        for key in rows:
            self.session.remove(self.store.transactions, key)
        total = sum(row.amount for row in rows.values())
        if total:
            opening = copied(
                rows[newest],
                transaction_type=TransactionType.OPENING.value,
                amount=total,
                description="Balance of older transactions",
                operation_id=None,
                actor=None,
            )
            self.session.put(self.store.transactions, newest, opening)
        return folded


def checked(account: UserCredits) -> UserCredits:
    """The account, if it keeps the table's rules. Raises `IntegrityError`."""
    if account.available_credits < 0 or account.held_credits < 0 or account.max_credits <= 0:
        raise IntegrityError
    return account
