"""The ledger in PostgreSQL: guarded statements, each a transaction, shared by the callers of this process."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, TextClause

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres import account_statements, ledger_statements
from shopassist.db.postgres.coalescer import Coalescer
from shopassist.db.resilience import ConnectionLostError, sent, translated
from shopassist.errors import StorageUnavailableError
from shopassist.models import UserCredits
from shopassist.models.ledger import Adjustment, CreditPolicy, Grant, HoldRequest, OpenHold, Settlement


@dataclass(frozen=True, slots=True)
class Take:
    """A request for credits, to hold or to spend; of 0 credits, a look at the account that resets what is due."""

    user_id: str
    is_guest: bool
    amount: int
    operation_id: UUID
    is_hold: bool = False
    description: str | None = None
    question_hash: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a hold: settled, or given back."""

    hold_id: UUID
    user_id: str
    settlement: Settlement | None = None


class PostgresCreditLedger:
    """Implements `CreditLedger`."""

    def __init__(self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock) -> None:
        """`policy` says how many credits there are and when they come back."""
        self._manager = manager
        self._policy = policy
        self._clock = clock
        self._reads = Coalescer(self._read)
        self._takes = Coalescer(self._take, kind=lambda take: (take.user_id, take.amount))
        # Two ends of one hold never share a statement, which could not tell which of them was the one.
        self._closes = Coalescer(self._close, kind=lambda close: (close.hold_id, object()))

    async def account(self, user_id: str, is_guest: bool) -> UserCredits:
        account = await self._reads.submit(user_id)
        if account is not None:
            return account
        return (await self._takes.submit(Take(user_id, is_guest, 0, uuid4()))).account

    async def register(self, user_id: str) -> UserCredits:
        credits_ = self._policy.max_registered_credits
        await self._run(account_statements.REGISTER, user_id=user_id, credits=credits_)
        return await self.account(user_id, is_guest=False)

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        return await self._takes.submit(Take(user_id, is_guest, amount, uuid4(), description=description))

    async def hold(self, request: HoldRequest) -> Grant:
        return await self._takes.submit(
            Take(
                request.user_id,
                request.is_guest,
                request.amount,
                request.hold_id,
                is_hold=True,
                question_hash=request.question_hash,
                idempotency_key=request.idempotency_key,
            )
        )

    async def open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        rows = await self._run(
            ledger_statements.OPEN_HOLDS, user_id=user_id, question_hash=question_hash, key=idempotency_key
        )
        return [OpenHold(row.question_hash, row.idempotency_key) for row in rows]

    async def settle(self, settlement: Settlement) -> bool:
        return await self._closes.submit(Close(settlement.hold_id, settlement.user_id, settlement))

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        return await self._closes.submit(Close(hold_id, user_id))

    async def void_expired(self, limit: int = 1000) -> int:
        rows = await self._run(ledger_statements.EXPIRED_HOLDS, limit=limit)
        return sum(await self._close([Close(row.hold_id, row.user_id) for row in rows])) if rows else 0

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        rows = await self._run(
            account_statements.ADJUST,
            user_id=adjustment.user_id,
            amount=adjustment.amount,
            reason=adjustment.reason,
            actor=adjustment.actor,
            operation_id=adjustment.operation_id,
            idempotency_key=adjustment.idempotency_key,
            request_hash=adjustment.request_hash,
            replay_lifetime=self._policy.replay_lifetime,
        )
        return account_of(rows[0]) if rows else None

    async def reset(self, user_id: str) -> None:
        await self._run(account_statements.RESET, user_id=user_id)

    async def reset_due(self, limit: int = 1000) -> int:
        interval = self._policy.reset_interval
        [row] = await self._run(account_statements.RESET_DUE, interval=interval, limit=limit)
        return int(row[0])

    async def _read(self, user_ids: Sequence[str]) -> list[UserCredits | None]:
        """The accounts that need nothing done; None for those that are missing or due for a reset."""
        interval = self._policy.reset_interval
        rows = await self._run(ledger_statements.READ, user_ids=list(set(user_ids)), interval=interval)
        found = {row.user_id: row for row in rows if not row.due}
        return [account_of(found[user_id]) if user_id in found else None for user_id in user_ids]

    async def _take(self, requests: Sequence[Take]) -> list[Grant | Exception]:
        """Requests of one user must ask for one amount. Opens the accounts that are missing."""
        grants: dict[UUID, Grant | Exception] = dict(await self._take_surely(requests))
        missing = [request for request in requests if request.operation_id not in grants]
        if missing:
            try:
                await self._open(missing)
                grants |= await self._take_surely(missing)
            except StorageUnavailableError as error:
                # The others have theirs, and must hear of it.
                grants |= dict.fromkeys((request.operation_id for request in missing), error)
        return [grants[request.operation_id] for request in requests]

    async def _take_surely(self, requests: Sequence[Take]) -> dict[UUID, Grant]:
        """Take, and where the connection was lost on the way, find out what happened before doing the rest."""
        try:
            return await self._take_once(requests)
        except ConnectionLostError:
            happened = await self._happened(requests)
        accounts = await self._read_all([request.user_id for request in happened])
        grants = {request.operation_id: Grant(True, accounts[request.user_id]) for request in happened}
        rest = [request for request in requests if request.operation_id not in grants]
        return grants | (await self._take_once(rest) if rest else {})

    async def _take_once(self, requests: Sequence[Take]) -> dict[UUID, Grant]:
        rows = await self._run(
            ledger_statements.TAKE,
            user_ids=[request.user_id for request in requests],
            guests=[request.is_guest for request in requests],
            amounts=[request.amount for request in requests],
            operation_ids=[request.operation_id for request in requests],
            holds=[request.is_hold for request in requests],
            descriptions=[request.description for request in requests],
            questions=[request.question_hash for request in requests],
            keys=[request.idempotency_key for request in requests],
            interval=self._policy.reset_interval,
            lifetime=self._policy.hold_lifetime,
        )
        return {
            requests[row.position - 1].operation_id: Grant(row.granted, account_of(row), row.in_flight) for row in rows
        }

    async def _happened(self, requests: Sequence[Take]) -> list[Take]:
        """Those that were granted. The locks wait for a statement that still runs without its connection."""
        user_ids = [request.user_id for request in requests]
        operation_ids = [request.operation_id for request in requests]
        with translated():
            async with self._manager.engine.begin() as connection:
                await connection.execute(ledger_statements.LOCK, {"user_ids": user_ids})
                parameters = {"user_ids": user_ids, "operation_ids": operation_ids}
                found = set((await connection.execute(ledger_statements.HAPPENED, parameters)).scalars())
        return [request for request in requests if request.operation_id in found]

    async def _open(self, requests: Sequence[Take]) -> None:
        await self._run(
            ledger_statements.OPEN,
            user_ids=[request.user_id for request in requests],
            guests=[request.is_guest for request in requests],
            credits=[self._policy.max_credits(request.is_guest) for request in requests],
        )

    async def _close(self, requests: Sequence[Close]) -> list[bool]:
        """Whether each was closed so. Closing twice is closing once, so after a lost connection it is done again."""
        try:
            closed = await self._close_once(requests)
        except ConnectionLostError:
            closed = await self._close_once(requests)
            unsure = [request for request in requests if request.hold_id not in closed]
            takes = [Take(request.user_id, False, 0, request.hold_id) for request in unsure]
            settled = {take.operation_id for take in await self._happened(takes)}
            closed |= {r.hold_id for r in unsure if (r.hold_id in settled) == (r.settlement is not None)}
        return [request.hold_id in closed for request in requests]

    async def _close_once(self, requests: Sequence[Close]) -> set[UUID]:
        settlements = [request.settlement for request in requests]
        answers = [settlement and settlement.answer for settlement in settlements]
        replays = [settlement and settlement.replay for settlement in settlements]
        rows = await self._run(
            ledger_statements.CLOSE,
            hold_ids=[request.hold_id for request in requests],
            user_ids=[request.user_id for request in requests],
            settled=[settlement is not None for settlement in settlements],
            descriptions=[settlement and settlement.description for settlement in settlements],
            hashes=[answer and answer.query_hash for answer in answers],
            results=[answer and json.dumps(answer.result, allow_nan=False) for answer in answers],
            lifetimes=[answer and answer.lifetime for answer in answers],
            keys=[replay and replay.idempotency_key for replay in replays],
            request_hashes=[replay and replay.request_hash for replay in replays],
            responses=[replay and json.dumps(replay.response, allow_nan=False) for replay in replays],
            replay_lifetime=self._policy.replay_lifetime,
        )
        return {row.hold_id for row in rows}

    async def _read_all(self, user_ids: Sequence[str]) -> dict[str, UserCredits]:
        interval = self._policy.reset_interval
        rows = await self._run(ledger_statements.READ, user_ids=list(set(user_ids)), interval=interval)
        return {row.user_id: account_of(row) for row in rows}

    async def _run(self, statement: TextClause, **parameters: Any) -> Sequence[Row[Any]]:
        parameters["instant"] = self._clock.instant()
        with translated():
            async with self._manager.statement_connection() as connection:
                with sent():
                    result = await connection.execute(statement, parameters)
                    return result.all() if result.returns_rows else []


def account_of(row: Row[Any]) -> UserCredits:
    """The account in a row that has its columns."""
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
