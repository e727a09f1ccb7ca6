"""The ledger in PostgreSQL: every call is one guarded statement on a connection that commits each statement."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, TextClause

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock, CreditPolicy, Grant, StoredAnswer
from shopassist.db.postgres import ledger_statements as statements
from shopassist.db.resilience import translated
from shopassist.models import UserCredits

UNSEEN = "the account vanished while its credits were asked for"


@dataclass(frozen=True, slots=True)
class Take:
    """A request for credits."""

    user_id: str
    is_guest: bool
    amount: int
    operation_id: UUID
    is_hold: bool
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a hold: settled into a deduction, or given back."""

    hold_id: UUID
    user_id: str
    is_settled: bool
    description: str | None = None
    answer: StoredAnswer | None = None


class PostgresCreditLedger:
    """Implements `CreditLedger`."""

    def __init__(self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock) -> None:
        """`policy` says how many credits there are and when they come back."""
        self._manager = manager
        self._policy = policy
        self._clock = clock

    async def account(self, user_id: str, is_guest: bool) -> UserCredits:
        rows = await self._run(statements.READ, user_ids=[user_id], interval=self._policy.reset_interval)
        if rows and not rows[0].due:
            return account_of(rows[0])
        [grant] = await self._take([Take(user_id, is_guest and not rows, 0, uuid4(), is_hold=False)])
        return grant.account

    async def register(self, user_id: str) -> UserCredits:
        await self._run(statements.REGISTER, user_id=user_id, credits=self._policy.max_registered_credits)
        return await self.account(user_id, is_guest=False)

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        [grant] = await self._take([Take(user_id, is_guest, amount, uuid4(), is_hold=False, description=description)])
        return grant

    async def hold(self, user_id: str, is_guest: bool, amount: int, hold_id: UUID) -> Grant:
        [grant] = await self._take([Take(user_id, is_guest, amount, hold_id, is_hold=True)])
        return grant

    async def settle(self, hold_id: UUID, user_id: str, description: str, answer: StoredAnswer | None) -> bool:
        return bool(
            await self._close([Close(hold_id, user_id, is_settled=True, description=description, answer=answer)])
        )

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        return bool(await self._close([Close(hold_id, user_id, is_settled=False)]))

    async def void_expired(self, limit: int = 1000) -> int:
        rows = await self._run(statements.EXPIRED_HOLDS, limit=limit)
        return len(await self._close([Close(row.hold_id, row.user_id, is_settled=False) for row in rows]))

    async def reset(self, user_id: str) -> None:
        await self._run(statements.RESET, user_id=user_id)

    async def reset_due(self, limit: int = 1000) -> int:
        [row] = await self._run(statements.RESET_DUE, interval=self._policy.reset_interval, limit=limit)
        return int(row[0])

    async def _take(self, requests: Sequence[Take]) -> list[Grant]:
        """Requests of one user must ask for one amount. Opens the accounts that are missing."""
        grants: dict[int, Grant] = {}
        for _ in range(2):
            rows = await self._run(statements.TAKE, **self._take_arrays(requests))
            grants = {row.position: Grant(row.granted, account_of(row)) for row in rows}
            missing = [request for position, request in enumerate(requests, 1) if position not in grants]
            if not missing:
                return [grants[position] for position in range(1, len(requests) + 1)]
            await self._open(missing)
        raise RuntimeError(UNSEEN)

    def _take_arrays(self, requests: Sequence[Take]) -> dict[str, Any]:
        return {
            "user_ids": [request.user_id for request in requests],
            "guests": [request.is_guest for request in requests],
            "amounts": [request.amount for request in requests],
            "operation_ids": [request.operation_id for request in requests],
            "holds": [request.is_hold for request in requests],
            "descriptions": [request.description for request in requests],
            "interval": self._policy.reset_interval,
            "lifetime": self._policy.hold_lifetime,
        }

    async def _open(self, requests: Sequence[Take]) -> None:
        await self._run(
            statements.OPEN,
            user_ids=[request.user_id for request in requests],
            guests=[request.is_guest for request in requests],
            credits=[self._policy.max_credits(request.is_guest) for request in requests],
        )

    async def _close(self, requests: Sequence[Close]) -> set[UUID]:
        """The holds that were still open and are closed now."""
        if not requests:
            return set()
        answers = [request.answer for request in requests]
        rows = await self._run(
            statements.CLOSE,
            hold_ids=[request.hold_id for request in requests],
            user_ids=[request.user_id for request in requests],
            settled=[request.is_settled for request in requests],
            descriptions=[request.description for request in requests],
            hashes=[answer and answer.query_hash for answer in answers],
            results=[answer and json.dumps(answer.result, allow_nan=False) for answer in answers],
            lifetimes=[answer and answer.lifetime for answer in answers],
        )
        return {row.hold_id for row in rows}

    async def _run(self, statement: TextClause, **parameters: Any) -> Sequence[Row[Any]]:
        with translated():
            async with self._manager.statement_connection() as connection:
                result = await connection.execute(statement, {**parameters, "instant": self._clock.instant()})
                return result.all() if result.returns_rows else []


def account_of(row: Row[Any]) -> UserCredits:
    """The account in a row of `READ` or `TAKE`."""
    return UserCredits(
        user_id=row.user_id,
        is_guest=row.is_guest,
        available_credits=row.available_credits,
        held_credits=row.held_credits,
        max_credits=row.max_credits,
        last_reset_timestamp=row.last_reset_timestamp,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
