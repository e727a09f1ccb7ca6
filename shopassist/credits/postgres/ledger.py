"""Credit ledger in PostgreSQL: batched, guarded statements, each its own transaction."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import to_json
from sqlalchemy import TextClause

from shopassist.audit.models import ADJUST_CREDITS
from shopassist.credits.models import CreditPolicy, UserCredits
from shopassist.credits.ports import Adjustment, Grant, HoldRequest, LedgerCounters, OpenHold, Settlement
from shopassist.credits.postgres import account_sql, ledger_sql
from shopassist.credits.postgres.requests import CreditRequest, CreditRequestHandler, HoldRelease, row_to_account
from shopassist.db.batcher import Batcher
from shopassist.db.database import DatabaseManager
from shopassist.db.failures import ConnectionLostError
from shopassist.db.ports import Clock, UserHashFunction
from shopassist.db.statements import fetch, fetch_without_deadline


class PostgresCreditLedger:
    """Implements `CreditLedger`. Concurrent calls of this process are sent as one statement over arrays."""

    def __init__(
        self,
        manager: DatabaseManager,
        policy: CreditPolicy,
        clock: Clock,
        hash_user: UserHashFunction,
        counters: LedgerCounters,
    ) -> None:
        """`hash_user` finds the erasures of a user; `counters` count holds and deductions for metrics."""
        self._manager = manager
        self._policy = policy
        self._clock = clock
        self._counters = counters
        observe = manager.counters.batches.observe
        self._account_reads = Batcher(self._read, on_batch=lambda size: observe(size, "account"))
        self._handler = CreditRequestHandler(manager, policy, clock, hash_user)
        self._credit_requests = Batcher(
            self._handler.execute, group_of=self._handler.group_key, on_batch=lambda size: observe(size, "take")
        )
        # Two releases of one hold never share a statement: its result could not tell which of them closed it.
        self._hold_releases = Batcher(
            self._close,
            group_of=lambda release: (release.hold_id, object()),
            on_batch=lambda size: observe(size, "close"),
        )

    async def get_or_create_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        account = await self._account_reads.submit(user_id)
        if account is not None:
            return account
        request = CreditRequest(user_id, is_guest, 0, uuid4(), network=network)
        return (await self._credit_requests.submit(request)).account

    async def register_guest(self, user_id: str) -> UserCredits:
        credits_ = self._policy.max_registered_credits
        await self._run_idempotent(account_sql.REGISTER_ACCOUNT, user_id=user_id, credits=credits_)
        return await self.get_or_create_account(user_id, is_guest=False)

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        request = CreditRequest(user_id, is_guest, amount, uuid4(), description=description)
        return self._counters.record(await self._credit_requests.submit(request), is_hold=False)

    async def place_hold(self, request: HoldRequest) -> Grant:
        hold = CreditRequest(
            request.user_id,
            request.is_guest,
            request.amount,
            request.hold_id,
            is_hold=True,
            question_hash=request.question_hash,
            idempotency_key=request.idempotency_key,
            network=request.network,
        )
        return self._counters.record(await self._credit_requests.submit(hold), is_hold=True)

    async def list_open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        rows = await self._run_idempotent(
            ledger_sql.SELECT_OPEN_HOLDS, user_id=user_id, question_hash=question_hash, key=idempotency_key
        )
        return [OpenHold(row["question_hash"], row["idempotency_key"]) for row in rows]

    async def settle(self, settlement: Settlement) -> bool:
        settled = await self._hold_releases.submit(HoldRelease(settlement.hold_id, settlement.user_id, settlement))
        self._counters.settled += settled
        return settled

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        voided = await self._hold_releases.submit(HoldRelease(hold_id, user_id))
        self._counters.voided += voided
        return voided

    async def void_expired(self, limit: int = 1000) -> int:
        rows = await self._run_idempotent(ledger_sql.SELECT_EXPIRED_HOLDS, limit=limit)
        expired = sum(await self._close([HoldRelease(row["hold_id"], row["user_id"]) for row in rows])) if rows else 0
        self._counters.expired += expired
        return expired

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        try:
            return await self._adjust_once(adjustment)
        except ConnectionLostError as lost:
            if not await self._handler.find_committed({adjustment.operation_id: adjustment.user_id}, lost.backend):
                return await self._adjust_once(adjustment)
        return await self.get_or_create_account(adjustment.user_id, is_guest=False)

    async def reset(self, user_id: str) -> None:
        await self._run_idempotent(account_sql.RESET_ACCOUNT, user_id=user_id)

    async def reset_due_accounts(self, limit: int = 1000) -> int:
        interval = self._policy.reset_interval
        [row] = await self._run_idempotent(account_sql.RESET_DUE_ACCOUNTS, interval=interval, limit=limit)
        return int(row[0])

    async def delete_old_guest_counts(self, limit: int = 1000) -> int:
        [row] = await fetch_without_deadline(
            self._manager, account_sql.DELETE_OLD_GUEST_COUNTS, limit=limit, instant=self._clock.instant()
        )
        return int(row[0])

    async def _adjust_once(self, adjustment: Adjustment) -> UserCredits | None:
        rows = await self._run(
            account_sql.ADJUST_ACCOUNT,
            user_id=adjustment.user_id,
            amount=adjustment.amount,
            reason=adjustment.reason,
            actor=adjustment.actor,
            act=ADJUST_CREDITS,
            request_id=adjustment.request_id,
            operation_id=adjustment.operation_id,
            idempotency_key=adjustment.idempotency_key,
            request_hash=adjustment.request_hash,
            replay_lifetime=self._policy.replay_lifetime,
        )
        return row_to_account(rows[0]) if rows else None

    async def _read(self, user_ids: Sequence[str]) -> list[UserCredits | None]:
        """Return each account, or None if it is missing or due for a reset."""
        interval = self._policy.reset_interval
        rows = await self._run_idempotent(ledger_sql.SELECT_ACCOUNTS, user_ids=list(set(user_ids)), interval=interval)
        found = {row["user_id"]: row for row in rows if not row["due"]}
        return [row_to_account(found[user_id]) if user_id in found else None for user_id in user_ids]

    async def _close(self, requests: Sequence[HoldRelease]) -> list[bool]:
        """Close holds; return which were closed by this call. Safe to repeat, so it is after a lost connection."""
        try:
            closed = await self._close_once(requests)
        except ConnectionLostError:
            closed = await self._close_once(requests)
            unsure = [request for request in requests if request.hold_id not in closed]
            settled = await self._handler.find_committed({request.hold_id: request.user_id for request in unsure}, None)
            closed |= {r.hold_id for r in unsure if (r.hold_id in settled) == (r.settlement is not None)}
        return [request.hold_id in closed for request in requests]

    async def _close_once(self, requests: Sequence[HoldRelease]) -> set[UUID]:
        settlements = [request.settlement for request in requests]
        answers = [settlement and settlement.answer for settlement in settlements]
        replays = [settlement and settlement.replay for settlement in settlements]
        rows = await self._run(
            ledger_sql.CLOSE_HOLDS,
            hold_ids=[request.hold_id for request in requests],
            user_ids=[request.user_id for request in requests],
            settled=[settlement is not None for settlement in settlements],
            descriptions=[settlement and settlement.description for settlement in settlements],
            hashes=[answer and answer.query_hash for answer in answers],
            results=[answer and answer.result for answer in answers],
            lifetimes=[answer and answer.lifetime for answer in answers],
            keys=[replay and replay.idempotency_key for replay in replays],
            request_hashes=[replay and replay.request_hash for replay in replays],
            responses=[replay and to_json(replay.response).decode() for replay in replays],
            replay_lifetime=self._policy.replay_lifetime,
        )
        return {row["hold_id"] for row in rows}

    async def _run(self, statement: TextClause, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, instant=self._clock.instant(), **parameters)

    async def _run_idempotent(self, statement: TextClause, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, repeatable=True, instant=self._clock.instant(), **parameters)
