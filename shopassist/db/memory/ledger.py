"""The ledger in memory."""

from uuid import UUID

from shopassist.db.memory.accounts import MemoryAccounts
from shopassist.db.memory.cached_answers import keep_answer
from shopassist.db.memory.replays import keep
from shopassist.db.memory.repository import copied
from shopassist.db.memory.store import MemoryStore
from shopassist.db.privacy import SubjectHash
from shopassist.models import CreditHold, TransactionType, UserCredits
from shopassist.models.admin_audit import act_of
from shopassist.models.ledger import (
    Adjustment,
    CreditPolicy,
    Grant,
    HoldRequest,
    LedgerFigures,
    OpenHold,
    Replay,
    Settlement,
)


class MemoryCreditLedger(MemoryAccounts):
    """Implements `CreditLedger`. Nothing is awaited under the lock, so each call happens at once or not at all."""

    def __init__(self, store: MemoryStore, policy: CreditPolicy, subjects: SubjectHash, figures: LedgerFigures) -> None:
        """`policy` says how many credits there are and when they come back.

        `subjects` hashes user ids; `figures` count what is done.
        """
        super().__init__(store, policy, subjects)
        self._figures = figures

    async def account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        async with self._store.lock:
            return copied(self._touch(user_id, is_guest, network))

    async def register(self, user_id: str) -> UserCredits:
        async with self._store.lock:
            account = self._touch(user_id, is_guest=False)
            if account.is_guest:
                account.is_guest = False
                account.max_credits = self._policy.max_registered_credits
                self._refill(account, TransactionType.ALLOCATE, "Credits of a registered user")
            return copied(account)

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        async with self._store.lock:
            account = self._touch(user_id, is_guest)
            granted = self._may_take(account, is_guest, amount)
            if granted and amount:
                account.available_credits -= amount
                self._record(account, TransactionType.DEDUCT, -amount, description)
            return self._figures.count(Grant(granted, copied(account)), is_hold=False)

    async def hold(self, request: HoldRequest) -> Grant:
        async with self._store.lock:
            account = self._touch(request.user_id, request.is_guest, request.network)
            if self._is_answered(request):
                return Grant(False, copied(account), answered=True)
            if not self._may_take(account, request.is_guest, request.amount):
                return self._figures.count(Grant(False, copied(account)), is_hold=True)
            if self._in_flight(request):
                return Grant(False, copied(account), in_flight=True)
            account.available_credits -= request.amount
            account.held_credits += request.amount
            now = self._store.now()
            self._store.holds[request.hold_id] = CreditHold(
                hold_id=request.hold_id,
                user_id=request.user_id,
                amount=request.amount,
                created_at=now,
                expires_at=now + self._policy.hold_lifetime,
                question_hash=request.question_hash,
                idempotency_key=request.idempotency_key,
            )
            return self._figures.count(Grant(True, copied(account)), is_hold=True)

    async def open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        wanted = HoldRequest(UUID(int=0), user_id, False, 0, question_hash, idempotency_key)
        return [OpenHold(hold.question_hash, hold.idempotency_key) for hold in self._in_flight(wanted)]

    async def settle(self, settlement: Settlement) -> bool:
        async with self._store.lock:
            hold = self._close(settlement.hold_id, settlement.user_id)
            if hold is None:
                return False
            account = self._store.accounts[hold.user_id]
            self._record(account, TransactionType.DEDUCT, -hold.amount, settlement.description, hold.hold_id)
            if settlement.answer is not None:
                keep_answer(self._store, settlement.answer)
            if settlement.replay is not None:
                keep(self._store, self._policy, settlement.replay)
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
            expired = [hold for hold in self._store.holds.values() if hold.expires_at <= now][:limit]
            self._figures.expired += len(expired)
            return sum(self._void(hold.hold_id, hold.user_id) for hold in expired)

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        async with self._store.lock:
            account = self._store.accounts.get(adjustment.user_id)
            if account is None or not 0 <= account.available_credits + adjustment.amount <= self._most(account):
                return None
            if adjustment.idempotency_key is not None:
                key = (adjustment.actor, adjustment.idempotency_key)
                kept = self._store.replays.get(key)
                if kept is not None and kept.expires_at >= self._store.now():
                    return None
                balance = account.available_credits + adjustment.amount
                keep(self._store, self._policy, replay_of(adjustment, balance, account.max_credits))
            account.available_credits += adjustment.amount
            self._record(
                account, TransactionType.ADJUST, adjustment.amount, adjustment.reason, adjustment.operation_id
            ).actor = adjustment.actor
            key_ = self._store.next_id("admin_audit")
            self._store.admin_acts[key_] = copied(act_of(adjustment), id=key_, timestamp=self._store.now())
            return copied(account)

    async def reset(self, user_id: str) -> None:
        async with self._store.lock:
            account = self._store.accounts.get(user_id)
            if account and not account.is_guest:
                self._reset(account, "Credit reset")

    async def reset_due(self, limit: int = 1000) -> int:
        async with self._store.lock:
            due = [account for account in self._store.accounts.values() if self._is_due(account)][:limit]
            for account in due:
                self._reset(account)
            return len(due)

    def _may_take(self, account: UserCredits, is_guest: bool, amount: int) -> bool:
        return amount <= account.available_credits and (account.is_guest or not is_guest)

    def _most(self, account: UserCredits) -> int:
        return self._policy.largest_amount - account.held_credits

    def _in_flight(self, request: HoldRequest) -> list[CreditHold]:
        """Open holds of the same user for the same question, or under the same key."""
        question, key = request.question_hash, request.idempotency_key
        mine = self._store.holds.of(request.user_id).values()
        return [
            hold
            for hold in mine
            if (question is not None and hold.question_hash == question)
            or (key is not None and hold.idempotency_key == key)
        ]

    def _is_answered(self, request: HoldRequest) -> bool:
        """Whether the question has a valid answer, or the key one that is kept."""
        stored = self._store.cache.get(request.question_hash or "")
        kept = self._store.replays.get((request.user_id, request.idempotency_key or ""))
        return any(entry is not None and entry.expires_at >= self._store.now() for entry in (stored, kept))

    def _close(self, hold_id: UUID, user_id: str) -> CreditHold | None:
        hold = self._store.holds.get(hold_id)
        if hold is None or hold.user_id != user_id:
            return None
        del self._store.holds[hold_id]
        self._store.accounts[user_id].held_credits -= hold.amount
        return hold

    def _void(self, hold_id: UUID, user_id: str) -> bool:
        hold = self._close(hold_id, user_id)
        if hold is not None:
            self._store.accounts[user_id].available_credits += hold.amount
        return hold is not None


def replay_of(adjustment: Adjustment, available_credits: int, max_credits: int) -> Replay:
    """What is kept of an adjustment under its key."""
    response = {
        "user_id": adjustment.user_id,
        "amount": adjustment.amount,
        "reason": adjustment.reason,
        "actor": adjustment.actor,
        "available_credits": available_credits,
        "max_credits": max_credits,
    }
    return Replay(adjustment.actor, adjustment.idempotency_key or "", adjustment.request_hash, response)
