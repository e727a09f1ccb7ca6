"""Recomputing balances in memory."""

from shopassist.db.memory.store import MemoryStore
from shopassist.models.audit import AuditPage, Books


class MemoryLedgerAudit:
    """Implements `LedgerAudit`."""

    def __init__(self, store: MemoryStore) -> None:
        """Looks at `store`."""
        self._store = store

    async def page(self, after_user_id: str = "", limit: int = 5000) -> AuditPage:
        async with self._store.lock:
            accounts = sorted(user_id for user_id in self._store.accounts if user_id > after_user_id)[:limit]
            last = accounts[-1] if len(accounts) == limit else None
            written = {row.user_id for row in self._store.transactions.values()}
            written |= {hold.user_id for hold in self._store.holds.values()}
            within = {name for name in written if name > after_user_id and (last is None or name <= last)}
            books = self._books(within.union(accounts))
        return AuditPage(len(accounts), tuple(drift for one in books for drift in one.drifts()), last)

    def _books(self, user_ids: set[str]) -> list[Books]:
        ledger, holds, newest = dict.fromkeys(user_ids, 0), dict.fromkeys(user_ids, 0), dict.fromkeys(user_ids, 0)
        for _, row in sorted(self._store.transactions.items()):
            if row.user_id in user_ids:
                ledger[row.user_id] += row.amount
                newest[row.user_id] = row.balance_after
        for hold in self._store.holds.values():
            if hold.user_id in user_ids:
                holds[hold.user_id] += hold.amount
        accounts = self._store.accounts
        return [
            Books(
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
