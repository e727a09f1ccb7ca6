"""Credit ledger in memory."""

import time
from datetime import timedelta
from uuid import UUID

from shopassist.audit.models import ADJUST_CREDITS, AdminAct
from shopassist.cache.memory import keep_answer
from shopassist.cache.models import QueryCache
from shopassist.credits.memory.repository import count_guest, store_idempotent_answer
from shopassist.credits.models import (
    CreditHold,
    CreditPolicy,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    ErasureHistory,
    IdempotentAnswer,
    TransactionType,
    UserCredits,
    compute_initial_balance,
)
from shopassist.credits.ports import (
    Adjustment,
    Grant,
    HoldRequest,
    IdempotencyRecord,
    LedgerCounters,
    OpenHold,
    Settlement,
)
from shopassist.db.memory import MemoryStore, copy_row
from shopassist.db.ports import UserHashFunction
from shopassist.db.resilience import get_request_start


def adjustment_to_audit_entry(adjustment: Adjustment) -> AdminAct:
    """An adjustment as an act."""
    return AdminAct(
        actor=adjustment.actor,
        act=ADJUST_CREDITS,
        target=adjustment.user_id,
        reason=adjustment.reason,
        request_id=adjustment.request_id,
    )


class MemoryAccounts:
    """What the ledger does to one account. Whoever calls holds the store's lock."""

    def __init__(self, store: MemoryStore, policy: CreditPolicy, subjects: UserHashFunction) -> None:
        """`policy` says how many credits there are and when they come back; `subjects` hashes user ids."""
        self._store = store
        self._policy = policy
        self._subjects = subjects

    def _touch(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        account = self._store.table(UserCredits).get(user_id)
        if account is None:
            asked_since = timedelta(seconds=time.monotonic() - get_request_start())
            begins = compute_initial_balance(
                is_guest, get_erasure_history(self._store, self._subjects(user_id)), self._policy, asked_since
            )
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
            self._store.table(UserCredits)[user_id] = account
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
        key = self._store.next_id(CreditTransaction)
        row = self._store.table(CreditTransaction)[key] = CreditTransaction(
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


class MemoryCreditLedger(MemoryAccounts):
    """Implements `CreditLedger`. Nothing is awaited under the lock, so each call happens at once or not at all."""

    def __init__(
        self, store: MemoryStore, policy: CreditPolicy, subjects: UserHashFunction, figures: LedgerCounters
    ) -> None:
        """`policy` says how many credits there are and when they come back.

        `subjects` hashes user ids; `figures` count what is done.
        """
        super().__init__(store, policy, subjects)
        self._figures = figures

    async def get_or_create_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        async with self._store.lock:
            return copy_row(self._touch(user_id, is_guest, network))

    async def register_guest(self, user_id: str) -> UserCredits:
        async with self._store.lock:
            account = self._touch(user_id, is_guest=False)
            if account.is_guest:
                account.is_guest = False
                account.max_credits = self._policy.max_registered_credits
                self._refill(account, TransactionType.ALLOCATE, "Credits of a registered user")
            return copy_row(account)

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        async with self._store.lock:
            account = self._touch(user_id, is_guest)
            granted = self._may_take(account, is_guest, amount)
            if granted and amount:
                account.available_credits -= amount
                self._record(account, TransactionType.DEDUCT, -amount, description)
            return self._figures.record(Grant(granted, copy_row(account)), is_hold=False)

    async def place_hold(self, request: HoldRequest) -> Grant:
        async with self._store.lock:
            account = self._touch(request.user_id, request.is_guest, request.network)
            if self._is_answered(request):
                return Grant(False, copy_row(account), already_answered=True)
            if not self._may_take(account, request.is_guest, request.amount):
                return self._figures.record(Grant(False, copy_row(account)), is_hold=True)
            if self._find_open_holds(request):
                return Grant(False, copy_row(account), is_in_progress=True)
            account.available_credits -= request.amount
            account.held_credits += request.amount
            now = self._store.now()
            self._store.table(CreditHold)[request.hold_id] = CreditHold(
                hold_id=request.hold_id,
                user_id=request.user_id,
                amount=request.amount,
                created_at=now,
                expires_at=now + self._policy.hold_lifetime,
                question_hash=request.question_hash,
                idempotency_key=request.idempotency_key,
            )
            return self._figures.record(Grant(True, copy_row(account)), is_hold=True)

    async def list_open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        wanted = HoldRequest(UUID(int=0), user_id, False, 0, question_hash, idempotency_key)
        return [OpenHold(hold.question_hash, hold.idempotency_key) for hold in self._find_open_holds(wanted)]

    async def settle(self, settlement: Settlement) -> bool:
        async with self._store.lock:
            hold = self._close(settlement.hold_id, settlement.user_id)
            if hold is None:
                return False
            account = self._store.table(UserCredits)[hold.user_id]
            self._record(account, TransactionType.DEDUCT, -hold.amount, settlement.description, hold.hold_id)
            if settlement.answer is not None:
                keep_answer(self._store, settlement.answer)
            if settlement.replay is not None:
                store_idempotent_answer(self._store, self._policy, settlement.replay)
            self._figures.settled += 1
            return True

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        async with self._store.lock:
            voided = self._void(hold_id, user_id)
            self._figures.voided += voided
            return voided

    async def void_expired(self, limit: int = 1000) -> int:
        async with self._store.lock:
            now = self._store.now()
            expired = [hold for hold in self._store.table(CreditHold).values() if hold.expires_at <= now][:limit]
            self._figures.expired += len(expired)
            return sum(self._void(hold.hold_id, hold.user_id) for hold in expired)

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        async with self._store.lock:
            account = self._store.table(UserCredits).get(adjustment.user_id)
            if account is None or not 0 <= account.available_credits + adjustment.amount <= self._most(account):
                return None
            if adjustment.idempotency_key is not None:
                key = (adjustment.actor, adjustment.idempotency_key)
                kept = self._store.table(IdempotentAnswer).get(key)
                if kept is not None and kept.expires_at >= self._store.now():
                    return None
                balance = account.available_credits + adjustment.amount
                store_idempotent_answer(
                    self._store,
                    self._policy,
                    adjustment_to_idempotency_record(adjustment, balance, account.max_credits),
                )
            account.available_credits += adjustment.amount
            self._record(
                account, TransactionType.ADJUST, adjustment.amount, adjustment.reason, adjustment.operation_id
            ).actor = adjustment.actor
            key_ = self._store.next_id(AdminAct)
            self._store.table(AdminAct)[key_] = copy_row(
                adjustment_to_audit_entry(adjustment), id=key_, timestamp=self._store.now()
            )
            return copy_row(account)

    async def reset(self, user_id: str) -> None:
        async with self._store.lock:
            account = self._store.table(UserCredits).get(user_id)
            if account and not account.is_guest:
                self._reset(account, "Credit reset")

    async def reset_due_accounts(self, limit: int = 1000) -> int:
        async with self._store.lock:
            due = [account for account in self._store.table(UserCredits).values() if self._is_due(account)][:limit]
            for account in due:
                self._reset(account)
            return len(due)

    def _may_take(self, account: UserCredits, is_guest: bool, amount: int) -> bool:
        return amount <= account.available_credits and (account.is_guest or not is_guest)

    def _most(self, account: UserCredits) -> int:
        return self._policy.largest_amount - account.held_credits

    def _find_open_holds(self, request: HoldRequest) -> list[CreditHold]:
        """Open holds of the same user for the same question, or under the same key."""
        question, key = request.question_hash, request.idempotency_key
        mine = self._store.user_rows(CreditHold, request.user_id).values()
        return [
            hold
            for hold in mine
            if (question is not None and hold.question_hash == question)
            or (key is not None and hold.idempotency_key == key)
        ]

    def _is_answered(self, request: HoldRequest) -> bool:
        """Whether the question has a valid answer, or the key one that is kept."""
        stored = self._store.table(QueryCache).get(request.question_hash or "")
        kept = self._store.table(IdempotentAnswer).get((request.user_id, request.idempotency_key or ""))
        return any(entry is not None and entry.expires_at >= self._store.now() for entry in (stored, kept))

    def _close(self, hold_id: UUID, user_id: str) -> CreditHold | None:
        hold = self._store.table(CreditHold).get(hold_id)
        if hold is None or hold.user_id != user_id:
            return None
        del self._store.table(CreditHold)[hold_id]
        self._store.table(UserCredits)[user_id].held_credits -= hold.amount
        return hold

    def _void(self, hold_id: UUID, user_id: str) -> bool:
        hold = self._close(hold_id, user_id)
        if hold is not None:
            self._store.table(UserCredits)[user_id].available_credits += hold.amount
        return hold is not None


def adjustment_to_idempotency_record(
    adjustment: Adjustment, available_credits: int, max_credits: int
) -> IdempotencyRecord:
    """What is kept of an adjustment under its key."""
    response = {
        "user_id": adjustment.user_id,
        "amount": adjustment.amount,
        "reason": adjustment.reason,
        "actor": adjustment.actor,
        "available_credits": available_credits,
        "max_credits": max_credits,
    }
    return IdempotencyRecord(adjustment.actor, adjustment.idempotency_key or "", adjustment.request_hash, response)


def find_last_erasure(store: MemoryStore, subject_hash: str) -> Erasure | None:
    """The unfinished erasure of a subject, else the last one."""
    rows = [row for row in store.table(Erasure).values() if row.subject_hash == subject_hash]
    return max(rows, key=lambda row: (row.finished_at is None, row.requested_at), default=None)


def get_erasure_history(store: MemoryStore, subject_hash: str) -> ErasureHistory:
    """What is known of a subject that wants an account."""
    last, now = find_last_erasure(store, subject_hash), store.now()
    balance = store.table(ErasedBalance).get(subject_hash)
    return ErasureHistory(
        now,
        last is not None and last.finished_at is None,
        last.requested_at if last else None,
        balance if balance and balance.forget_at > now else None,
    )
