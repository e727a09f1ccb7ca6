"""All rows of a user in memory: read and replaced as a whole."""

from collections.abc import Sequence

from shopassist.audit.models import AdminAct
from shopassist.cache.memory import keep_answer
from shopassist.cache.models import StoredAnswer
from shopassist.consent.models import ConsentEvent, ConsentNotice, UserConsent
from shopassist.credits.models import CreditHold, CreditTransaction, IdempotentAnswer, UserCredits
from shopassist.db.memory import MemoryStore, copy_row
from shopassist.privacy.models import GuestMerge
from shopassist.rollout.backends import Erased, Rows, find_new_events


class MemoryUserRows:
    """Implements `MirrorRows`. Nothing is awaited under the lock, so each call happens at once or not at all."""

    def __init__(self, store: MemoryStore) -> None:
        """Reads and writes `store`."""
        self._store = store

    async def read(self, user_ids: Sequence[str]) -> dict[str, Rows]:
        async with self._store.lock:
            found = {user_id: self._of(user_id) for user_id in user_ids}
            return {user_id: copy_rows(rows) for user_id, rows in found.items() if rows}

    async def write(self, user_id: str, rows: Rows) -> None:
        async with self._store.lock:
            self._remove(user_id)
            self._add(user_id, copy_rows(rows))

    async def take_away(self, user_id: str) -> Rows:
        rows = self._of(user_id)
        await self.replace(user_id, {})
        return rows

    async def replace(self, user_id: str, rows: Rows) -> None:
        async with self._store.lock:
            self._remove(user_id)
            self._store.consent_events.disown_all(user_id)
            self._add(user_id, rows)

    async def disown(self, user_id: str) -> None:
        async with self._store.lock:
            for key in self._merges(user_id):
                merge = self._store.guest_merges.pop(key)
                if merge.guest_id != user_id:
                    self._store.guest_merges[key] = copy_row(merge, user_id=None)

    async def keepers(self, user_id: str) -> list[str]:
        return sorted({row.user_id for row in self._store.replays.values() if row.response.get("user_id") == user_id})

    async def know_notices(self, notices: Sequence[ConsentNotice]) -> None:
        async with self._store.lock:
            self._store.notices.update((row.id, copy_row(row)) for row in notices if row.id is not None)

    async def acts(self) -> list[AdminAct]:
        return [copy_row(act) for act in self._store.admin_acts.values()]

    async def drop_acts(self, acts: Sequence[AdminAct]) -> None:
        for act in acts:
            self._store.admin_acts.pop(act.id or 0, None)

    async def keep_answer(self, answer: StoredAnswer) -> None:
        async with self._store.lock:
            keep_answer(self._store, answer)

    def account(self, user_id: str) -> UserCredits | None:
        return self._store.accounts.get(user_id)

    async def owners(self, limit: int, after_user_id: str = "") -> list[str]:
        store = self._store
        async with store.lock:
            everybody = {*store.accounts, *store.consents}
            for rows in (store.holds, store.transactions, store.consent_events, store.replays):
                everybody |= rows.owners()
        return sorted(user_id for user_id in everybody if user_id > after_user_id)[:limit]

    async def note_acts(self, acts: Sequence[AdminAct]) -> None:
        for act in acts:
            key = self._store.next_id("admin_audit")
            self._store.admin_acts[key] = copy_row(act, id=key)

    async def erased(self, subject_hash: str | None = None) -> Erased:
        async with self._store.lock:
            erasures = [copy_row(row) for row in self._store.erasures.values()]
            balances = [copy_row(row) for row in self._store.erased_balances.values()]
        return (
            [row for row in erasures if subject_hash in {None, row.subject_hash}],
            [row for row in balances if subject_hash in {None, row.subject_hash}],
        )

    async def learn(self, erased: Erased) -> None:
        async with self._store.lock:
            # Whose they are, and under which pseudonym, is for where they are erased.
            self._store.erasures |= {row.id: copy_row(row, user_id=None, pseudonym=None) for row in erased[0]}
            self._store.erased_balances |= {row.subject_hash: copy_row(row) for row in erased[1]}

    def _merges(self, user_id: str) -> list[str]:
        return [key for key, row in self._store.guest_merges.items() if user_id in {row.user_id, row.guest_id}]

    def _of(self, user_id: str) -> Rows:
        store = self._store
        account, consent = store.accounts.get(user_id), store.consents.get(user_id)
        rows: Rows = {
            UserCredits: [account] if account else [],
            CreditHold: list(store.holds.of(user_id).values()),
            CreditTransaction: [row for _, row in sorted(store.transactions.of(user_id).items())],
            UserConsent: [consent] if consent else [],
            ConsentEvent: [row for _, row in sorted(store.consent_events.of(user_id).items())],
            IdempotentAnswer: list(store.replays.of(user_id).values()),
            GuestMerge: [store.guest_merges[key] for key in self._merges(user_id)],
        }
        return {table: of_table for table, of_table in rows.items() if of_table}

    def _remove(self, user_id: str) -> None:
        store = self._store
        store.accounts.pop(user_id, None)
        store.consents.pop(user_id, None)
        for rows in (store.holds, store.transactions, store.replays):
            rows.disown_all(user_id)

    def _add(self, user_id: str, rows: Rows) -> None:
        """Add the rows themselves, no copies."""
        store = self._store
        events = find_new_events(store.consent_events.of(user_id).values(), rows.get(ConsentEvent, ()))
        for account in rows.get(UserCredits, ()):
            store.accounts[account.user_id] = account
        for hold in rows.get(CreditHold, ()):
            store.holds[hold.hold_id] = hold
        for transaction in rows.get(CreditTransaction, ()):
            transaction.id = store.next_id("credit_transactions")
            store.transactions[transaction.id] = transaction
        for consent in rows.get(UserConsent, ()):
            store.consents[consent.user_id] = consent
        for event in events:
            event.id = store.next_id("consent_events")
            store.consent_events[event.id] = event
        for kept in rows.get(IdempotentAnswer, ()):
            store.replays[kept.user_id, kept.idempotency_key] = kept
        for merge in rows.get(GuestMerge, ()):
            store.guest_merges[merge.guest_id] = copy_row(merge)  # it may stay where it was


def copy_rows(rows: Rows) -> Rows:
    """The same, of which nobody else knows."""
    return {table: [copy_row(row) for row in of_table] for table, of_table in rows.items()}
