"""Credit accounts in memory: opened, refilled and written about."""

import time
from datetime import timedelta
from uuid import UUID

from shopassist.db.memory.erasures import past_of
from shopassist.db.memory.guest_networks import count_guest
from shopassist.db.memory.store import MemoryStore
from shopassist.db.privacy import SubjectHash
from shopassist.db.resilience.policy import request_began
from shopassist.models import CreditTransaction, TransactionType, UserCredits
from shopassist.models.erasure import opening
from shopassist.models.ledger import CreditPolicy


class MemoryAccounts:
    """What the ledger does to one account. Whoever calls holds the store's lock."""

    def __init__(self, store: MemoryStore, policy: CreditPolicy, subjects: SubjectHash) -> None:
        """`policy` says how many credits there are and when they come back; `subjects` hashes user ids."""
        self._store = store
        self._policy = policy
        self._subjects = subjects

    def _touch(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        account = self._store.accounts.get(user_id)
        if account is None:
            asked_since = timedelta(seconds=time.monotonic() - request_began())
            begins = opening(is_guest, past_of(self._store, self._subjects(user_id)), self._policy, asked_since)
            if is_guest and network is not None:
                count_guest(self._store, self._policy, network)
            now = self._store.now()
            account = UserCredits(
                user_id=user_id,
                is_guest=is_guest,
                available_credits=begins.available_credits,
                held_credits=0,
                max_credits=begins.max_credits,
                last_reset_timestamp=begins.last_reset or now,
                created_at=now,
                updated_at=now,
            )
            self._store.accounts[user_id] = account
            if account.available_credits:
                self._record(account, TransactionType.ALLOCATE, account.available_credits, "Initial credits")
            return self._touch(user_id, is_guest)
        if self._is_due(account):
            self._reset(account)
        return account

    def _is_due(self, account: UserCredits) -> bool:
        since: timedelta = self._store.now() - account.last_reset_timestamp
        return not account.is_guest and since >= self._policy.reset_interval

    def _reset(self, account: UserCredits, description: str = "Periodic credit reset") -> None:
        self._refill(account, TransactionType.RESET, description)

    def _refill(self, account: UserCredits, transaction_type: TransactionType, description: str) -> None:
        refilled = max(account.available_credits, account.max_credits - account.held_credits)
        added = refilled - account.available_credits
        account.available_credits = refilled
        account.last_reset_timestamp = self._store.now()
        if added:
            self._record(account, transaction_type, added, description)

    def _record(
        self,
        account: UserCredits,
        transaction_type: TransactionType,
        amount: int,
        description: str,
        operation_id: UUID | None = None,
    ) -> CreditTransaction:
        key = self._store.next_id("credit_transactions")
        row = self._store.transactions[key] = CreditTransaction(
            id=key,
            user_id=account.user_id,
            transaction_type=transaction_type.value,
            amount=amount,
            timestamp=self._store.now(),
            description=description,
            balance_after=account.available_credits + account.held_credits,
            operation_id=operation_id,
        )
        return row
