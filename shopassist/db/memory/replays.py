"""Answers kept by idempotency key, in memory."""

from shopassist.db.memory.store import MemoryStore
from shopassist.models import IdempotentAnswer
from shopassist.models.ledger import CreditPolicy, Replay


class MemoryReplays:
    """Implements `Replays`."""

    def __init__(self, store: MemoryStore, policy: CreditPolicy) -> None:
        """`policy` says how long an answer is kept."""
        self._store = store
        self._policy = policy

    async def find(self, user_id: str, idempotency_key: str) -> Replay | None:
        kept = self._store.replays.get((user_id, idempotency_key))
        if kept is None or kept.expires_at < self._store.now():
            return None
        return Replay(kept.user_id, kept.idempotency_key, kept.request_hash, kept.response)

    async def remember(self, replay: Replay) -> None:
        has_account = replay.user_id in self._store.accounts
        if has_account and await self.find(replay.user_id, replay.idempotency_key) is None:
            keep(self._store, self._policy, replay)

    async def forget_expired(self, limit: int = 1000) -> int:
        now = self._store.now()
        expired = [key for key, kept in self._store.replays.items() if kept.expires_at < now][:limit]
        for key in expired:
            del self._store.replays[key]
        return len(expired)


def keep(store: MemoryStore, policy: CreditPolicy, replay: Replay) -> None:
    """Keep an answer from now on."""
    store.replays[replay.user_id, replay.idempotency_key] = IdempotentAnswer(
        user_id=replay.user_id,
        idempotency_key=replay.idempotency_key,
        request_hash=replay.request_hash,
        response=replay.response,
        expires_at=store.now() + policy.replay_lifetime,
    )
