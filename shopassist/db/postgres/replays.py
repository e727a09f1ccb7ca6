"""Answers kept by idempotency key, in PostgreSQL."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import TextClause, text

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres.driver import fetch
from shopassist.models.ledger import CreditPolicy, Replay

REPLAY = text("""
SELECT user_id, idempotency_key, request_hash, response FROM idempotent_answers
WHERE user_id = :user_id AND idempotency_key = :idempotency_key
  AND expires_at >= COALESCE(CAST(:instant AS timestamptz), now())
""")

# Only while there is the account: what an erased caller was answered is not kept.
REMEMBER = text("""
INSERT INTO idempotent_answers AS a (user_id, idempotency_key, request_hash, response, expires_at)
SELECT user_id, :idempotency_key, :request_hash, CAST(:response AS jsonb),
       COALESCE(CAST(:instant AS timestamptz), now()) + CAST(:replay_lifetime AS interval)
FROM user_credits WHERE user_id = CAST(:user_id AS text) FOR KEY SHARE
ON CONFLICT (user_id, idempotency_key) DO UPDATE
SET request_hash = excluded.request_hash, response = excluded.response, expires_at = excluded.expires_at
WHERE a.expires_at < COALESCE(CAST(:instant AS timestamptz), now())
""")

FORGET = text("""
DELETE FROM idempotent_answers WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotent_answers
    WHERE expires_at < COALESCE(CAST(:instant AS timestamptz), now()) ORDER BY expires_at LIMIT :limit
)) RETURNING true
""")


class PostgresReplays:
    """Implements `Replays`."""

    def __init__(self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock) -> None:
        """`policy` says how long an answer is kept."""
        self._manager = manager
        self._policy = policy
        self._clock = clock

    async def find(self, user_id: str, idempotency_key: str) -> Replay | None:
        rows = await self._run(REPLAY, user_id=user_id, idempotency_key=idempotency_key)
        return Replay(*rows[0].values()) if rows else None

    async def remember(self, replay: Replay) -> None:
        await self._run(
            REMEMBER,
            user_id=replay.user_id,
            idempotency_key=replay.idempotency_key,
            request_hash=replay.request_hash,
            response=json.dumps(replay.response, allow_nan=False),
            replay_lifetime=self._policy.replay_lifetime,
        )

    async def forget_expired(self, limit: int = 1000) -> int:
        return len(await self._run(FORGET, limit=limit))

    async def _run(self, statement: TextClause, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, repeatable=True, instant=self._clock.instant(), **parameters)
