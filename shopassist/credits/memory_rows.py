"""Credits in memory: rows of the ledger, reconciliation and idempotent responses."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from shopassist.credits.models import (
    CreditHold,
    CreditPolicy,
    CreditTransaction,
    Drift,
    Erasure,
    IdempotentAnswer,
    ReconciliationPage,
    TransactionType,
    UserCredits,
    find_drifts,
)
from shopassist.credits.ports import UNFILTERED, CompactionBatch, HistoryFilter, IdempotencyRecord, compact_all
from shopassist.db.memory import MemoryRepository, MemoryStore, copy_row
from shopassist.errors import IntegrityError


class MemoryCreditRepository(MemoryRepository):
    """Implements `CreditRepository`."""

    async def get_user_credits(self, user_id: str) -> UserCredits | None:
        account = self.store.table(UserCredits).get(user_id)
        return account and copy_row(account)

    async def create_user_credits(self, account: UserCredits) -> UserCredits:
        if account.user_id in self.store.table(UserCredits):
            raise IntegrityError
        self._put(account)
        return account

    async def update_user_credits(self, user_id: str, **updates: Any) -> UserCredits | None:
        account = self.store.table(UserCredits).get(user_id)
        return account and self._put(copy_row(account, **updates, updated_at=self.store.now()))

    async def create_transaction(self, transaction: CreditTransaction) -> CreditTransaction:
        if transaction.amount == 0:
            raise IntegrityError
        if getattr(transaction, "balance_after", None) is None:
            last = await self.get_user_transactions(transaction.user_id, limit=1)
            transaction.balance_after = transaction.amount + (last[0].balance_after if last else 0)
        transaction.id = self.store.next_id(CreditTransaction)
        self.session.put(self.store.table(CreditTransaction), transaction.id, copy_row(transaction))
        return transaction

    async def get_user_transactions(
        self, user_id: str, limit: int = 100, before_id: int | None = None, filter_: HistoryFilter = UNFILTERED
    ) -> list[CreditTransaction]:
        rows = sorted(self.store.user_rows(CreditTransaction, user_id).items(), reverse=True)
        older = [row for key, row in rows if before_id is None or key < before_id]
        return [copy_row(row) for row in older if all(filter_.build_conditions(row))][:limit]

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        return await compact_all(self, days)

    async def compact_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> CompactionBatch:
        cutoff = self.store.now() - timedelta(days=days)
        keys = sorted(key for key in self.store.table(CreditTransaction) if key > after_id)[:limit]
        rows = [(key, self.store.table(CreditTransaction)[key]) for key in keys]
        last_old = {row.user_id: key for key, row in rows if row.timestamp < cutoff}
        compacted = sum(self._compact(user_id, key) for user_id, key in last_old.items())
        return CompactionBatch(compacted, keys[-1] if last_old else None)

    def _compact(self, user_id: str, last_key: int) -> int:
        """Turn the row `last_key` into the opening row of all up to it; return the number of transactions replaced."""
        rows = {key: row for key, row in self.store.user_rows(CreditTransaction, user_id).items() if key <= last_key}
        compacted = sum(row.transaction_type != TransactionType.OPENING for row in rows.values())
        if not compacted:
            return 0
        for key in rows:
            self.session.remove(self.store.table(CreditTransaction), key)
        total = sum(row.amount for row in rows.values())
        if total:
            opening = copy_row(
                rows[last_key],
                transaction_type=TransactionType.OPENING.value,
                amount=total,
                description="Balance of older transactions",
                operation_id=None,
                actor=None,
            )
            self.session.put(self.store.table(CreditTransaction), last_key, opening)
        return compacted

    def _put(self, account: UserCredits) -> UserCredits:
        """Store a copy of `account`, checked as the table's constraints do."""
        if account.available_credits < 0 or account.held_credits < 0 or account.max_credits <= 0:
            raise IntegrityError
        self.session.put(self.store.table(UserCredits), account.user_id, copy_row(account))
        return account


@dataclass(slots=True)
class MemoryLedgerReconciliation:
    """Implements `LedgerReconciliation`."""

    store: MemoryStore

    async def reconcile_page(self, after_user_id: str = "", limit: int = 5000) -> ReconciliationPage:
        async with self.store.lock:
            accounts = sorted(user_id for user_id in self.store.table(UserCredits) if user_id > after_user_id)[:limit]
            last = accounts[-1] if len(accounts) == limit else None
            transactions, holds = self.store.user_table(CreditTransaction), self.store.user_table(CreditHold)
            owners = transactions.list_users() | holds.list_users()
            in_range = {name for name in owners if name > after_user_id and (last is None or name <= last)}
            erasing = {
                row.pseudonym: row.user_id
                for row in self.store.table(Erasure).values()
                if row.had_account and row.pseudonym and row.user_id
            }
            settled = in_range.union(accounts).difference(erasing, erasing.values())
            drifts = [drift for user_id in sorted(settled) for drift in self._find_drifts(user_id)]
            if last is None:
                for pseudonym in sorted(erasing):
                    drifts += self._find_drifts(pseudonym, erasing[pseudonym])
        return ReconciliationPage(len(accounts), tuple(drifts), last)

    def _find_drifts(self, user_id: str, former_id: str | None = None) -> list[Drift]:
        """Reconcile an account. Its transactions include those of `former_id`, the user whose data is being erased."""
        account = self.store.table(UserCredits).get(user_id)
        rows = {**self.store.user_rows(CreditTransaction, user_id)}
        if former_id is not None:
            rows |= self.store.user_rows(CreditTransaction, former_id)
        return find_drifts(
            user_id,
            balance=None if account is None else account.available_credits + account.held_credits,
            held=0 if account is None else account.held_credits,
            ledger=sum(row.amount for row in rows.values()),
            last_balance=rows[max(rows)].balance_after if rows else None,
            open_holds=sum(hold.amount for hold in self.store.user_rows(CreditHold, user_id).values()),
        )


class MemoryIdempotencyStore:
    """Implements `IdempotencyStore`."""

    def __init__(self, store: MemoryStore, policy: CreditPolicy) -> None:
        """`policy` gives the lifetime of a response."""
        self._store = store
        self._policy = policy

    async def get(self, user_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        row = find_response(self._store, user_id, idempotency_key)
        return IdempotencyRecord(user_id, idempotency_key, row.request_hash, row.response) if row else None

    async def store(self, record: IdempotencyRecord) -> None:
        has_account = record.user_id in self._store.table(UserCredits)
        if has_account and not find_response(self._store, record.user_id, record.idempotency_key):
            store_response(self._store, self._policy, record)

    async def delete_expired(self, limit: int = 1000) -> int:
        now = self._store.now()
        expired = [key for key, row in self._store.table(IdempotentAnswer).items() if row.expires_at < now][:limit]
        for key in expired:
            del self._store.table(IdempotentAnswer)[key]
        return len(expired)


def find_response(store: MemoryStore, user_id: str, idempotency_key: str) -> IdempotentAnswer | None:
    """Return the stored response for a key, unless it has expired."""
    row = store.table(IdempotentAnswer).get((user_id, idempotency_key))
    return row if row is not None and row.expires_at >= store.now() else None


def store_response(store: MemoryStore, policy: CreditPolicy, record: IdempotencyRecord) -> None:
    """Store a response, replacing one with the same key."""
    row = IdempotentAnswer(**asdict(record), expires_at=store.now() + policy.replay_lifetime)
    store.table(IdempotentAnswer)[row.user_id, row.idempotency_key] = row
