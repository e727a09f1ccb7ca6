"""Rows of credits in memory: repository, reconciliation, idempotent answers, guest counts."""

from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

from shopassist.credits.models import (
    AccountReconciliation,
    CreditHold,
    CreditPolicy,
    CreditTransaction,
    Erasure,
    GuestNetwork,
    IdempotentAnswer,
    ReconciliationPage,
    TransactionType,
    UserCredits,
)
from shopassist.credits.ports import UNFILTERED, CompactionBatch, HistoryFilter, IdempotencyRecord
from shopassist.db.memory import MemoryRepository, MemoryStore, copy_row
from shopassist.errors import GuestLimitError, IntegrityError


class MemoryCreditRepository(MemoryRepository):
    """Implements `CreditRepository`."""

    async def get_user_credits(self, user_id: str) -> UserCredits | None:
        account = self.store.table(UserCredits).get(user_id)
        return account and copy_row(account)

    async def create_user_credits(self, account: UserCredits) -> UserCredits:
        if account.user_id in self.store.table(UserCredits):
            raise IntegrityError
        self.session.put(self.store.table(UserCredits), account.user_id, copy_row(validate_account(account)))
        return account

    async def update_user_credits(self, user_id: str, **updates: Any) -> UserCredits | None:
        account = self.store.table(UserCredits).get(user_id)
        if account is None:
            return None
        changed = validate_account(copy_row(account, **updates, updated_at=self.store.now()))
        self.session.put(self.store.table(UserCredits), user_id, changed)
        return copy_row(changed)

    async def create_transaction(self, transaction: CreditTransaction) -> CreditTransaction:
        if transaction.amount == 0:
            raise IntegrityError
        if getattr(transaction, "balance_after", None) is None:
            newest = await self.get_user_transactions(transaction.user_id, limit=1)
            transaction.balance_after = transaction.amount + (newest[0].balance_after if newest else 0)
        transaction.id = self.store.next_id(CreditTransaction)
        self.session.put(self.store.table(CreditTransaction), transaction.id, copy_row(transaction))
        return transaction

    async def get_user_transactions(
        self,
        user_id: str,
        limit: int = 100,
        before_id: int | None = None,
        filter_: HistoryFilter = UNFILTERED,
    ) -> list[CreditTransaction]:
        rows = sorted(self.store.user_rows(CreditTransaction, user_id).items(), reverse=True)
        mine = [row for key, row in rows if before_id is None or key < before_id]
        return [copy_row(row) for row in mine if filter_.matches(row)][:limit]

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        folded, last_id = 0, 0
        while True:
            fold = await self.compact_transactions(days, last_id)
            folded += fold.compacted
            if fold.last_id is None:
                return folded
            last_id = fold.last_id

    async def compact_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> CompactionBatch:
        cutoff = self.store.get_time_before(timedelta(days=days))
        seen = sorted(key for key in self.store.table(CreditTransaction) if key > after_id)[:limit]
        rows = [(key, self.store.table(CreditTransaction)[key]) for key in seen]
        newest = {row.user_id: key for key, row in rows if row.timestamp < cutoff}
        folded = sum(self._fold(user_id, key) for user_id, key in newest.items())
        return CompactionBatch(folded, seen[-1] if newest else None)

    def _fold(self, user_id: str, newest: int) -> int:
        """Make the row `newest` the opening row of all before it; how many transactions it absorbed, itself too."""
        rows = {k: row for k, row in self.store.user_rows(CreditTransaction, user_id).items() if k <= newest}
        folded = sum(row.transaction_type != TransactionType.OPENING for row in rows.values())
        if not folded:
            return 0
        for key in rows:
            self.session.remove(self.store.table(CreditTransaction), key)
        total = sum(row.amount for row in rows.values())
        if total:
            opening = copy_row(
                rows[newest],
                transaction_type=TransactionType.OPENING.value,
                amount=total,
                description="Balance of older transactions",
                operation_id=None,
                actor=None,
            )
            self.session.put(self.store.table(CreditTransaction), newest, opening)
        return folded


def validate_account(account: UserCredits) -> UserCredits:
    """The account, if it keeps the table's rules. Raises `IntegrityError`."""
    if account.available_credits < 0 or account.held_credits < 0 or account.max_credits <= 0:
        raise IntegrityError
    return account


class MemoryLedgerReconciliation:
    """Implements `LedgerReconciliation`."""

    def __init__(self, store: MemoryStore) -> None:
        """Looks at `store`."""
        self._store = store

    async def reconcile_page(self, after_user_id: str = "", limit: int = 5000) -> ReconciliationPage:
        async with self._store.lock:
            accounts = sorted(user_id for user_id in self._store.table(UserCredits) if user_id > after_user_id)[:limit]
            last = accounts[-1] if len(accounts) == limit else None
            written = {row.user_id for row in self._store.table(CreditTransaction).values()}
            written |= {hold.user_id for hold in self._store.table(CreditHold).values()}
            within = {name for name in written if name > after_user_id and (last is None or name <= last)}
            erasures = self._store.table(Erasure).values()
            erasing = {row.user_id: row.pseudonym for row in erasures if row.had_account and row.user_id}
            books = self._books(within.union(accounts) - set(erasing) - set(erasing.values()), {})
            if last is None:
                books += self._books({name for name in erasing.values() if name}, erasing)
        return ReconciliationPage(len(accounts), tuple(drift for one in books for drift in one.drifts()), last)

    def _books(self, user_ids: set[str], erasing: Mapping[str, str | None]) -> list[AccountReconciliation]:
        """Of each account; `erasing` are those whose rows are on their way to a pseudonym, and count as its."""
        ledger, holds, newest = dict.fromkeys(user_ids, 0), dict.fromkeys(user_ids, 0), dict.fromkeys(user_ids, 0)
        for _, row in sorted(self._store.table(CreditTransaction).items()):
            owner = erasing.get(row.user_id, row.user_id)
            if owner in user_ids:
                ledger[owner] += row.amount
                newest[owner] = row.balance_after
        for hold in self._store.table(CreditHold).values():
            if hold.user_id in user_ids:
                holds[hold.user_id] += hold.amount
        accounts = self._store.table(UserCredits)
        return [
            AccountReconciliation(
                user_id=user_id,
                balance=accounts[user_id].available_credits + accounts[user_id].held_credits
                if user_id in accounts
                else None,
                held=accounts[user_id].held_credits if user_id in accounts else 0,
                ledger=ledger[user_id],
                newest=newest[user_id],
                holds=holds[user_id],
            )
            for user_id in sorted(user_ids)
        ]


class MemoryIdempotencyStore:
    """Implements `IdempotencyStore`."""

    def __init__(self, store: MemoryStore, policy: CreditPolicy) -> None:
        """`policy` says how long an answer is kept."""
        self._store = store
        self._policy = policy

    async def get(self, user_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        kept = self._store.table(IdempotentAnswer).get((user_id, idempotency_key))
        if kept is None or kept.expires_at < self._store.now():
            return None
        return IdempotencyRecord(kept.user_id, kept.idempotency_key, kept.request_hash, kept.response)

    async def store(self, replay: IdempotencyRecord) -> None:
        has_account = replay.user_id in self._store.table(UserCredits)
        if has_account and await self.get(replay.user_id, replay.idempotency_key) is None:
            store_idempotent_answer(self._store, self._policy, replay)

    async def delete_expired(self, limit: int = 1000) -> int:
        now = self._store.now()
        expired = [key for key, kept in self._store.table(IdempotentAnswer).items() if kept.expires_at < now][:limit]
        for key in expired:
            del self._store.table(IdempotentAnswer)[key]
        return len(expired)


def store_idempotent_answer(store: MemoryStore, policy: CreditPolicy, replay: IdempotencyRecord) -> None:
    """Keep an answer from now on."""
    store.table(IdempotentAnswer)[replay.user_id, replay.idempotency_key] = IdempotentAnswer(
        user_id=replay.user_id,
        idempotency_key=replay.idempotency_key,
        request_hash=replay.request_hash,
        response=replay.response,
        expires_at=store.now() + policy.replay_lifetime,
    )


class MemoryGuestNetworks:
    """Implements `GuestNetworks`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock says which day it is."""
        self._store = store

    async def delete_old(self, limit: int = 1000) -> int:
        yesterday = self._store.get_time_before(timedelta(days=1)).astimezone(UTC).date()
        old = [key for key in self._store.table(GuestNetwork) if key[0] < yesterday][:limit]
        for key in old:
            del self._store.table(GuestNetwork)[key]
        return len(old)


def count_guest(store: MemoryStore, policy: CreditPolicy, network: str) -> None:
    """Count one more new guest of `network` today. Raises `GuestLimitError` when it has had its most."""
    day = store.now().astimezone(UTC).date()
    row = store.table(GuestNetwork).setdefault((day, network), GuestNetwork(day=day, network=network, accounts=0))
    if row.accounts >= policy.guest_accounts_per_network:
        raise GuestLimitError
    row.accounts += 1
