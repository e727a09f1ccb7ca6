"""Recomputing balances in memory."""

from collections.abc import Mapping

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
            erasing = {e.user_id: e.pseudonym for e in self._store.erasures.values() if e.had_account and e.user_id}
            books = self._books(within.union(accounts) - set(erasing) - set(erasing.values()), {})
            if last is None:
                books += self._books({name for name in erasing.values() if name}, erasing)
        return AuditPage(len(accounts), tuple(drift for one in books for drift in one.drifts()), last)

    def _books(self, user_ids: set[str], erasing: Mapping[str, str | None]) -> list[Books]:
        """Of each account; `erasing` are those whose rows are on their way to a pseudonym, and count as its."""
        ledger, holds, newest = dict.fromkeys(user_ids, 0), dict.fromkeys(user_ids, 0), dict.fromkeys(user_ids, 0)
        for _, row in sorted(self._store.transactions.items()):
            owner = erasing.get(row.user_id, row.user_id)
            if owner in user_ids:
                ledger[owner] += row.amount
                newest[owner] = row.balance_after
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
