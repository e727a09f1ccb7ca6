"""The rows behind the ledger, in memory."""

from datetime import timedelta
from typing import Any

from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.errors import IntegrityError
from shopassist.models import CreditTransaction, TransactionType, UserCredits


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
        transaction.id = self.store.next_transaction_id()
        self.session.put(self.store.transactions, transaction.id, copied(transaction))
        return transaction

    async def get_user_transactions(
        self, user_id: str, limit: int = 100, before_id: int | None = None
    ) -> list[CreditTransaction]:
        rows = sorted(self.store.transactions.items(), reverse=True)
        mine = [row for key, row in rows if row.user_id == user_id and (before_id is None or key < before_id)]
        return [copied(row) for row in mine[:limit]]

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        cutoff = self.store.ago(timedelta(days=days))
        folded = 0
        for user_id in {row.user_id for row in self.store.transactions.values()}:
            old = sorted(
                key for key, row in self.store.transactions.items() if row.user_id == user_id and row.timestamp < cutoff
            )
            folded += self._fold(old) if old else 0
        return folded

    def _fold(self, ids: list[int]) -> int:
        newest = self.store.transactions[ids[-1]]
        absorbed = ids[:-1]
        if newest.transaction_type != TransactionType.OPENING:
            absorbed = ids
            opening = copied(
                newest,
                transaction_type=TransactionType.OPENING.value,
                amount=newest.balance_after,
                description="Balance of older transactions",
                operation_id=None,
            )
            if opening.amount:
                self.session.put(self.store.transactions, ids[-1], opening)
            else:
                self.session.remove(self.store.transactions, ids[-1])
        for key in ids[:-1]:
            self.session.remove(self.store.transactions, key)
        return len(absorbed)


def checked(account: UserCredits) -> UserCredits:
    """The account, if it keeps the table's rules. Raises `IntegrityError`."""
    if account.available_credits < 0 or account.held_credits < 0 or account.max_credits <= 0:
        raise IntegrityError
    return account
