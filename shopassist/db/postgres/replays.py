"""Answers kept by idempotency key, in PostgreSQL."""

import json
from typing import Any

from sqlalchemy import CursorResult, TextClause, text

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.resilience import translated
from shopassist.models.ledger import CreditPolicy, Replay

REPLAY = text("""
SELECT user_id, idempotency_key, request_hash, response FROM idempotent_answers
WHERE user_id = :user_id AND idempotency_key = :idempotency_key
  AND expires_at >= COALESCE(CAST(:instant AS timestamptz), now())
""")

REMEMBER = text("""
INSERT INTO idempotent_answers AS a (user_id, idempotency_key, request_hash, response, expires_at)
SELECT :user_id, :idempotency_key, :request_hash, CAST(:response AS jsonb),
       COALESCE(CAST(:instant AS timestamptz), now()) + CAST(:replay_lifetime AS interval)
ON CONFLICT (user_id, idempotency_key) DO UPDATE
SET request_hash = excluded.request_hash, response = excluded.response, expires_at = excluded.expires_at
WHERE a.expires_at < COALESCE(CAST(:instant AS timestamptz), now())
""")

FORGET = text("""
DELETE FROM idempotent_answers WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotent_answers
    WHERE expires_at < COALESCE(CAST(:instant AS timestamptz), now()) ORDER BY expires_at LIMIT :limit
))
""")


class PostgresReplays:
    """Implements `Replays`."""

    def __init__(self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock) -> None:
        """`policy` says how long an answer is kept."""
        self._manager = manager
        self._policy = policy
        self._clock = clock

    async def find(self, user_id: str, idempotency_key: str) -> Replay | None:
        result = await self._execute(REPLAY, user_id=user_id, idempotency_key=idempotency_key)
        row = result.one_or_none()
        return None if row is None else Replay(row.user_id, row.idempotency_key, row.request_hash, row.response)

    async def remember(self, replay: Replay) -> None:
        await self._execute(
            REMEMBER,
            user_id=replay.user_id,
            idempotency_key=replay.idempotency_key,
            request_hash=replay.request_hash,
            response=json.dumps(replay.response, allow_nan=False),
            replay_lifetime=self._policy.replay_lifetime,
        )

    async def forget_expired(self, limit: int = 1000) -> int:
        return (await self._execute(FORGET, limit=limit)).rowcount

    async def _execute(self, statement: TextClause, **parameters: Any) -> CursorResult[Any]:
        with translated():
            async with self._manager.statement_connection() as connection:
                return await connection.execute(statement, {**parameters, "instant": self._clock.instant()})
