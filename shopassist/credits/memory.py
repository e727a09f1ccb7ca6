"""Credit ledger in memory."""

from dataclasses import dataclass
from datetime import UTC, timedelta
from uuid import UUID

from shopassist.audit.models import ADJUST_CREDITS, AdminAct
from shopassist.cache.memory import keep_answer
from shopassist.cache.models import QueryCache
from shopassist.credits.memory_rows import find_response, store_response
from shopassist.credits.models import (
    MAX_CREDITS,
    CreditHold,
    CreditPolicy,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    ErasureHistory,
    GuestNetwork,
    TransactionType,
    UserCredits,
    build_account,
)
from shopassist.credits.ports import (
    Adjustment,
    CreditRequest,
    Grant,
    IdempotencyRecord,
    LedgerCounters,
    OpenHold,
    Settlement,
)
from shopassist.db.memory import MemoryStore, copy_row
from shopassist.db.ports import UserHashFunction
from shopassist.db.resilience import get_request_start


@dataclass(slots=True)
class MemoryCreditLedger:
    """Implements `CreditLedger`. Nothing is awaited under the lock of `store`, so each call is atomic."""

    store: MemoryStore
    policy: CreditPolicy
    hash_user: UserHashFunction
    counters: LedgerCounters

    async def get_or_create_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        async with self.store.lock:
            return copy_row(self._get_or_create(user_id, is_guest, network))

    async def register_guest(self, user_id: str) -> UserCredits:
        async with self.store.lock:
            account = self._get_or_create(user_id, is_guest=False)
            if account.is_guest:
                account.is_guest = False
                self._refill(account, "Credits of a registered user", TransactionType.ALLOCATE)
            return copy_row(account)

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        async with self.store.lock:
            account = self._get_or_create(user_id, is_guest)
            granted = amount <= account.available_credits and (account.is_guest or not is_guest)
            if granted and amount:
                account.available_credits -= amount
                self._record(account, TransactionType.DEDUCT, -amount, description)
            return self.counters.record(Grant(granted, copy_row(account)), is_hold=False)

    async def place_hold(self, request: CreditRequest) -> Grant:
        async with self.store.lock:
            account = self._get_or_create(request.user_id, request.is_guest, request.network)
            if self._is_answered(request):
                return Grant(False, copy_row(account), already_answered=True)
            if request.amount > account.available_credits or (request.is_guest and not account.is_guest):
                return self.counters.record(Grant(False, copy_row(account), instant=self.store.now()), is_hold=True)
            if self._find_open_holds(request.user_id, request.question_hash, request.idempotency_key):
                return Grant(False, copy_row(account), is_in_progress=True)
            account.available_credits -= request.amount
            account.held_credits += request.amount
            now = self.store.now()
            self.store.table(CreditHold)[request.operation_id] = CreditHold(
                hold_id=request.operation_id,
                user_id=request.user_id,
                amount=request.amount,
                created_at=now,
                expires_at=now + self.policy.hold_lifetime,
                question_hash=request.question_hash,
                idempotency_key=request.idempotency_key,
            )
            return self.counters.record(Grant(True, copy_row(account)), is_hold=True)

    async def list_open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        return self._find_open_holds(user_id, question_hash, idempotency_key)

    async def settle(self, settlement: Settlement) -> bool:
        async with self.store.lock:
            settled = self._close(settlement)
            self.counters.settled += settled
            return settled

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        async with self.store.lock:
            voided = self._close(Settlement(hold_id, user_id))
            self.counters.voided += voided
            return voided

    async def void_expired(self, limit: int = 1000) -> int:
        async with self.store.lock:
            now = self.store.now()
            expired = [hold for hold in self.store.table(CreditHold).values() if hold.expires_at <= now][:limit]
            self.counters.expired += len(expired)
            return sum(self._close(Settlement(hold.hold_id, hold.user_id)) for hold in expired)

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        async with self.store.lock:
            account = self.store.table(UserCredits).get(adjustment.user_id)
            if account is None:
                return None
            balance = account.available_credits + adjustment.amount
            if not 0 <= balance <= MAX_CREDITS - account.held_credits:
                return None
            key = adjustment.idempotency_key
            if key is not None and find_response(self.store, adjustment.actor, key):
                return None
            account.available_credits = balance
            if key is not None:
                response = adjustment.build_response(account).model_dump()
                record = IdempotencyRecord(adjustment.actor, key, adjustment.request_hash, response)
                store_response(self.store, self.policy, record)
            row = self._record(
                account, TransactionType.ADJUST, adjustment.amount, adjustment.reason, adjustment.operation_id
            )
            row.actor = adjustment.actor
            entry_id = self.store.next_id(AdminAct)
            self.store.table(AdminAct)[entry_id] = AdminAct(
                id=entry_id,
                timestamp=self.store.now(),
                actor=adjustment.actor,
                act=ADJUST_CREDITS,
                target=adjustment.user_id,
                reason=adjustment.reason,
                request_id=adjustment.request_id,
            )
            return copy_row(account)

    async def reset(self, user_id: str) -> None:
        async with self.store.lock:
            account = self.store.table(UserCredits).get(user_id)
            if account and not account.is_guest:
                self._refill(account, "Credit reset")

    async def reset_due_accounts(self, limit: int = 1000) -> int:
        async with self.store.lock:
            due = [account for account in self.store.table(UserCredits).values() if self._is_due(account)][:limit]
            for account in due:
                self._refill(account, "Periodic credit reset")
            return len(due)

    async def delete_old_guest_counts(self, limit: int = 1000) -> int:
        yesterday = (self.store.now() - timedelta(days=1)).astimezone(UTC).date()
        old = [key for key in self.store.table(GuestNetwork) if key[0] < yesterday][:limit]
        for key in old:
            del self.store.table(GuestNetwork)[key]
        return len(old)

    def _get_or_create(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        account = self.store.table(UserCredits).get(user_id)
        if account is None:
            account = self._create(user_id, is_guest, network)
        if self._is_due(account):
            self._refill(account, "Periodic credit reset")
        return account

    def _create(self, user_id: str, is_guest: bool, network: str | None) -> UserCredits:
        history = get_erasure_history(self.store, self.hash_user(user_id))
        account = build_account(user_id, is_guest, history, self.policy, get_request_start())
        if is_guest and network is not None:
            day = history.now.astimezone(UTC).date()
            new = GuestNetwork(day=day, network=network, accounts=0)
            row = self.store.table(GuestNetwork).setdefault((day, network), new)
            if row.accounts >= self.policy.guest_accounts_per_network:
                raise self.counters.refuse_guest(history.now)
            row.accounts += 1
        self.store.table(UserCredits)[user_id] = account
        if account.available_credits:
            self._record(account, TransactionType.ALLOCATE, account.available_credits, "Initial credits")
        return account

    def _is_due(self, account: UserCredits) -> bool:
        since: timedelta = self.store.now() - account.last_reset_timestamp
        return not account.is_guest and since >= self.policy.reset_interval

    def _refill(self, account: UserCredits, description: str, kind: TransactionType = TransactionType.RESET) -> None:
        account.max_credits = self.policy.max_registered_credits
        refilled = max(account.available_credits, account.max_credits - account.held_credits)
        added = refilled - account.available_credits
        account.available_credits = refilled
        account.last_reset_timestamp = self.store.now()
        if added:
            self._record(account, kind, added, description)

    def _record(
        self, account: UserCredits, kind: TransactionType, amount: int, description: str, operation: UUID | None = None
    ) -> CreditTransaction:
        key = self.store.next_id(CreditTransaction)
        row = self.store.table(CreditTransaction)[key] = CreditTransaction(
            id=key,
            user_id=account.user_id,
            transaction_type=kind.value,
            amount=amount,
            timestamp=self.store.now(),
            description=description,
            balance_after=account.available_credits + account.held_credits,
            operation_id=operation,
        )
        return row

    def _find_open_holds(self, user_id: str, question: str | None, key: str | None) -> list[OpenHold]:
        return [
            OpenHold(hold.question_hash, hold.idempotency_key)
            for hold in self.store.user_rows(CreditHold, user_id).values()
            if (question is not None and hold.question_hash == question)
            or (key is not None and hold.idempotency_key == key)
        ]

    def _is_answered(self, request: CreditRequest) -> bool:
        answer = self.store.table(QueryCache).get(request.question_hash or "")
        if answer is not None and answer.expires_at >= self.store.now():
            return True
        return find_response(self.store, request.user_id, request.idempotency_key or "") is not None

    def _close(self, settlement: Settlement) -> bool:
        hold = self.store.table(CreditHold).get(settlement.hold_id)
        if hold is None or hold.user_id != settlement.user_id:
            return False
        del self.store.table(CreditHold)[hold.hold_id]
        account = self.store.table(UserCredits)[hold.user_id]
        account.held_credits -= hold.amount
        if settlement.description is None:
            account.available_credits += hold.amount
        else:
            self._record(account, TransactionType.DEDUCT, -hold.amount, settlement.description, hold.hold_id)
        if settlement.answer is not None:
            keep_answer(self.store, settlement.answer)
        if settlement.replay is not None:
            store_response(self.store, self.policy, settlement.replay)
        return True


def find_last_erasure(store: MemoryStore, subject_hash: str) -> Erasure | None:
    """Return the unfinished erasure of a subject, or else the last finished one."""
    rows = [row for row in store.table(Erasure).values() if row.subject_hash == subject_hash]
    return max(rows, key=lambda row: (row.finished_at is None, row.requested_at), default=None)


def get_erasure_history(store: MemoryStore, subject_hash: str) -> ErasureHistory:
    """Return what is known about a subject that requests an account."""
    now, last = store.now(), find_last_erasure(store, subject_hash)
    balance = store.table(ErasedBalance).get(subject_hash)
    return ErasureHistory(
        now,
        last is not None and last.finished_at is None,
        last.requested_at if last else None,
        balance if balance and balance.forget_at > now else None,
    )
