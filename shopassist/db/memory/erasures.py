"""Erasure in memory."""

from uuid import UUID

from shopassist.db.memory.holdings import erase, mine
from shopassist.db.memory.repository import copied
from shopassist.db.memory.store import MemoryStore
from shopassist.models import Erasure, UserCredits
from shopassist.models.erasing import balance_of, begun, closed, closing, is_of_guest
from shopassist.models.erasure import ErasurePolicy, ErasureRequest, Listed, Past
from shopassist.models.holdings import held_by


class MemoryErasures:
    """Implements `Erasures`. Nothing is awaited under the lock, so each step happens at once or not at all."""

    def __init__(self, store: MemoryStore, policy: ErasurePolicy) -> None:
        """`policy` says how long what is needed of the erased stays."""
        self._store = store
        self._policy = policy

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        async with self._store.lock:
            last = last_of(self._store, request.subject_hash)
            account = self._store.accounts.get(request.user_id)
            is_guest = is_of_guest(request, account, last)
            if last is not None and last.finished_at is None:
                return copied(last)
            holdings = held_by(is_guest, account is not None)
            if account is None and not any(mine(self._store, one, request.user_id, is_guest) for one in holdings):
                return last and copied(last)
            erasure = begun(request, is_guest, account is not None, self._store.now())
            if account is not None:
                self._close(account, erasure)
            self._store.erasures[erasure.id] = erasure
            return copied(erasure)

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        async with self._store.lock:
            erasure = self._store.erasures[erasure_id]
            if erasure.user_id is None or erasure.pseudonym is None:
                return copied(erasure)
            left, counts = limit, dict(erasure.counts)
            for one in held_by(erasure.is_guest, erasure.had_account):
                erased = erase(self._store, one, erasure.user_id, erasure.is_guest, erasure.pseudonym, left)
                left -= erased
                if erased:
                    counts[one.name] = counts.get(one.name, 0) + erased
            erasure.counts = counts
            if left > 0:
                erasure.finished_at = self._store.now()
                erasure.user_id = erasure.pseudonym = None
            return copied(erasure)

    async def unfinished(self, limit: int = 100) -> list[UUID]:
        async with self._store.lock:
            rows = [row for row in self._store.erasures.values() if row.finished_at is None]
            return [row.id for row in sorted(rows, key=lambda row: row.requested_at)][:limit]

    async def listed(self, limit: int = 1000, after: Listed | None = None) -> list[Listed]:
        async with self._store.lock:
            rows = [Listed(row.id, row.subject_hash, row.requested_at) for row in self._store.erasures.values()]
            rows.sort(key=lambda row: (row.erased_at, row.id))
            return [row for row in rows if after is None or (row.erased_at, row.id) > (after.erased_at, after.id)][
                :limit
            ]

    async def forget(self, limit: int = 1000) -> int:
        async with self._store.lock:
            now, oldest = self._store.now(), self._store.ago(self._policy.list_lifetime)
            balances = [key for key, row in self._store.erased_balances.items() if row.forget_at <= now][:limit]
            for key in balances:
                del self._store.erased_balances[key]
            rows = self._store.erasures.values()
            past = [row.id for row in rows if row.finished_at is not None and row.requested_at < oldest][:limit]
            for erasure_id in past:
                del self._store.erasures[erasure_id]
            return len(balances) + len(past)

    def _close(self, account: UserCredits, erasure: Erasure) -> None:
        """Give holds back, keep the balance under the hash, and let a closed account stand under the pseudonym."""
        store = self._store
        holds = list(store.holds.of(account.user_id))
        for hold_id in holds:
            del store.holds[hold_id]
        erasure.counts = {"account": 1, "holds": len(holds)}
        store.erased_balances[erasure.subject_hash] = balance_of(account, erasure, self._policy)
        del store.accounts[account.user_id]
        store.accounts[erasure.pseudonym or ""] = closed(account, erasure)
        last_row = closing(account, erasure)
        if last_row is not None:
            last_row.id = store.next_id("credit_transactions")
            store.transactions[last_row.id] = last_row


def last_of(store: MemoryStore, subject_hash: str) -> Erasure | None:
    """The unfinished erasure of a subject, else the last one."""
    rows = [row for row in store.erasures.values() if row.subject_hash == subject_hash]
    return max(rows, key=lambda row: (row.finished_at is None, row.requested_at), default=None)


def past_of(store: MemoryStore, subject_hash: str) -> Past:
    """What is known of a subject that wants an account."""
    last, now, balance = last_of(store, subject_hash), store.now(), store.erased_balances.get(subject_hash)
    return Past(
        now,
        last is not None and last.finished_at is None,
        last.requested_at if last else None,
        balance if balance and balance.forget_at > now else None,
    )
