"""Executes batches of credit requests (deductions and holds) and creates missing accounts."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import class_mapper

from shopassist.credits.models import (
    CreditPolicy,
    ErasedBalance,
    ErasureHistory,
    InitialBalance,
    UserCredits,
    compute_initial_balance,
)
from shopassist.credits.ports import Grant, Settlement
from shopassist.credits.postgres import account_sql, ledger_sql
from shopassist.db.database import DatabaseManager
from shopassist.db.failures import ConnectionLostError, ServerProcess
from shopassist.db.ports import Clock, UserHashFunction
from shopassist.db.resilience import get_request_start
from shopassist.db.statements import fetch
from shopassist.errors import AccountErasedError, GuestLimitError, ShopAssistError, StorageUnavailableError


@dataclass(frozen=True, slots=True)
class CreditRequest:
    """A request for credits, to hold or to spend; of 0 credits, a look at the account that resets what is due.

    `began` is when the caller came, by `time.monotonic()`.
    """

    user_id: str
    is_guest: bool
    amount: int
    operation_id: UUID
    is_hold: bool = False
    description: str | None = None
    question_hash: str | None = None
    idempotency_key: str | None = None
    network: str | None = None
    began: float = field(default_factory=get_request_start)


@dataclass(frozen=True, slots=True)
class HoldRelease:
    """The end of a hold: settled, or given back."""

    hold_id: UUID
    user_id: str
    settlement: Settlement | None = None


ACCOUNT_COLUMNS = tuple(column.key for column in class_mapper(UserCredits).column_attrs)
create_account_instance = class_mapper(UserCredits).class_manager.new_instance


def row_to_account(row: Any) -> UserCredits:
    """The account in a row that has its columns, built as the ORM builds what it loads: without validation."""
    account: UserCredits = create_account_instance()
    account.__dict__.update({column: row[column] for column in ACCOUNT_COLUMNS})
    return account


class AccountCreator:
    """Opens accounts for requests that found none."""

    def __init__(
        self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock, subjects: UserHashFunction
    ) -> None:
        """`policy` says how many credits a new account has."""
        self._manager = manager
        self._policy = policy
        self._clock = clock
        self._subjects = subjects

    async def open(self, requests: Sequence[CreditRequest]) -> dict[str, ShopAssistError]:
        """Open the accounts; why not, by user id, where that is refused. Raises domain errors."""

        async def once() -> dict[str, ShopAssistError]:
            async with self._manager.session() as session:
                return await self._open(session, requests)

        return await self._manager.resilience.run(once, repeatable=True)

    async def _open(self, session: AsyncSession, requests: Sequence[CreditRequest]) -> dict[str, ShopAssistError]:
        hashes = {request.user_id: self._subjects(request.user_id) for request in requests}
        await session.execute(account_sql.LOCK_SUBJECTS_SHARED, {"subjects": list(hashes.values())})
        pasts = await self._pasts(session, list(hashes.values()))
        openings: dict[str, tuple[CreditRequest, InitialBalance]] = {}
        refused: dict[str, ShopAssistError] = {}
        for request in requests:
            asked_since = timedelta(seconds=time.monotonic() - request.began)
            try:
                begins = compute_initial_balance(
                    request.is_guest, pasts[hashes[request.user_id]], self._policy, asked_since
                )
            except ShopAssistError as error:
                refused[request.user_id] = error
            else:
                openings.setdefault(request.user_id, (request, begins))
        opened = await self._opened(session, openings) if openings else set()
        # Who asked twice may have been refused once; who is not there after all was one guest too many.
        refused |= {user_id: GuestLimitError() for user_id in openings.keys() - opened}
        return {user_id: error for user_id, error in refused.items() if user_id not in opened}

    async def _opened(
        self, session: AsyncSession, openings: dict[str, tuple[CreditRequest, InitialBalance]]
    ) -> set[str]:
        """Open what is not there yet and may be; the user ids that have an account then."""
        takes, beginnings = zip(*openings.values(), strict=True)
        parameters = {
            "instant": self._clock.instant(),
            "user_ids": list(openings),
            "guests": [take.is_guest for take in takes],
            "credits": [begins.available_credits for begins in beginnings],
            "most": [begins.max_credits for begins in beginnings],
            "resets": [begins.last_reset for begins in beginnings],
            "networks": [take.network if take.is_guest else None for take in takes],
            "guests_per_network": self._policy.guest_accounts_per_network,
        }
        for spare in (await session.execute(account_sql.INSERT_ACCOUNTS, parameters)).mappings().all():
            await session.execute(account_sql.DECREMENT_GUEST_COUNT, dict(spare))
        there = await session.execute(account_sql.SELECT_EXISTING_ACCOUNTS, {"user_ids": list(openings)})
        return set(there.scalars())

    async def _pasts(self, session: AsyncSession, hashes: list[str]) -> dict[str, ErasureHistory]:
        parameters = {"subjects": hashes, "instant": self._clock.instant()}
        rows = (await session.execute(account_sql.SELECT_ERASURE_HISTORY, parameters)).all()
        return {
            row.subject_hash: ErasureHistory(
                row.instant,
                row.is_erasing,
                row.erased_at,
                None
                if row.forget_at is None
                else ErasedBalance(
                    subject_hash=row.subject_hash,
                    is_guest=row.is_guest,
                    available_credits=row.available_credits,
                    last_reset_timestamp=row.last_reset_timestamp,
                    forget_at=row.forget_at,
                ),
            )
            for row in rows
        }


GrantsByOperation = dict[UUID, Grant | Exception]
RequestStep = Callable[[Sequence[CreditRequest]], Awaitable[GrantsByOperation]]


class CreditRequestHandler:
    """Answers requests for credits. Those of one user in one call ask for the same amount, `alike`."""

    def __init__(
        self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock, subjects: UserHashFunction
    ) -> None:
        """`policy` says how many credits a new account has."""
        self._openings = AccountCreator(manager, policy, clock, subjects)
        self._manager = manager
        self._policy = policy
        self._clock = clock

    @staticmethod
    def alike(request: CreditRequest) -> tuple[str, tuple[int, bool]]:
        """Whose request it is, and what those of one user must share, so that grants can be counted."""
        return request.user_id, (request.amount, request.is_guest)

    async def answer(self, requests: Sequence[CreditRequest]) -> list[Grant | Exception]:
        """A grant for each, or why there is none. Raises only when nothing has happened."""
        grants: GrantsByOperation = {}
        for step in (self._spend, self._take, self._open_and_take):
            rest = [request for request in requests if request.operation_id not in grants]
            if rest:
                try:
                    grants |= await self._surely(step, rest)
                except Exception as error:
                    if not grants:
                        raise
                    # The others have theirs, and must hear of it.
                    grants |= await self._apart(rest, error)
        return [grants[request.operation_id] for request in requests]

    async def happened(self, operations: dict[UUID, str], backend: ServerProcess | None) -> set[UUID]:
        """Of operations, by id, on their users' accounts, those that were granted or settled.

        `backend` had the statement, and may have it before it yet: it is ended first. Where that cannot be (PgBouncer
        has no real numbers), the locks wait for a statement that still runs.
        """
        user_ids, operation_ids = list(operations.values()), list(operations)
        if backend is not None:
            await self._run(ledger_sql.TERMINATE_BACKEND, repeatable=True, pid=backend.pid, began=backend.began)

        async def look() -> set[UUID]:
            async with self._manager.session() as session:
                await session.execute(ledger_sql.LOCK_ACCOUNTS, {"user_ids": user_ids})
                parameters = {"user_ids": user_ids, "operation_ids": operation_ids}
                return set((await session.execute(ledger_sql.SELECT_COMMITTED_OPERATIONS, parameters)).scalars())

        return await self._manager.resilience.run(look, repeatable=True)

    async def _apart(self, requests: Sequence[CreditRequest], error: Exception) -> GrantsByOperation:
        """One by one, where it is a request that is at fault."""
        if len(requests) == 1 or isinstance(error, StorageUnavailableError):
            return {request.operation_id: error for request in requests}
        grants: GrantsByOperation = {}
        for request in requests:
            try:
                [grants[request.operation_id]] = await self.answer([request])
            except Exception as own:  # noqa: BLE001 - each is told their own
                grants[request.operation_id] = own
        return grants

    async def _surely(self, step: RequestStep, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        """Take a step, and where the connection was lost on the way, find out what happened before doing the rest."""
        try:
            return await step(requests)
        except ConnectionLostError as lost:
            operations = {request.operation_id: request.user_id for request in requests}
            happened = await self.happened(operations, lost.backend)
        done = [request for request in requests if request.operation_id in happened]
        user_ids = [request.user_id for request in done]
        interval = self._policy.reset_interval
        rows = await self._run(ledger_sql.SELECT_ACCOUNTS, repeatable=True, user_ids=user_ids, interval=interval)
        accounts = {row["user_id"]: row for row in rows}
        grants: GrantsByOperation = {
            request.operation_id: Grant(True, row_to_account(accounts[request.user_id]), already_answered=None)
            for request in done
        }
        rest = [request for request in requests if request.operation_id not in happened]
        return grants | (await step(rest) if rest else {})

    async def _spend(self, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        """Where all is to be spent, what can be decided without a reset, a hold or a new account."""
        if any(request.is_hold or not request.amount for request in requests):
            return {}
        asked: Counter[str] = Counter()
        turns = []
        for request in requests:
            asked[request.user_id] += 1
            turns.append(asked[request.user_id])
        rows = await self._run(
            ledger_sql.DEDUCT_CREDITS,
            user_ids=[request.user_id for request in requests],
            guests=[request.is_guest for request in requests],
            amounts=[request.amount for request in requests],
            turns=turns,
            operation_ids=[request.operation_id for request in requests],
            descriptions=[request.description for request in requests],
            interval=self._policy.reset_interval,
        )
        accounts = {row["user_id"]: row for row in rows}
        grants: GrantsByOperation = {}
        for request, turn in zip(requests, turns, strict=True):
            row = accounts.get(request.user_id)
            if row is not None:
                account = row_to_account(row)
                most = account.available_credits // request.amount if account.is_guest or not request.is_guest else 0
                granted = min(asked[request.user_id], most)
                account.__dict__["available_credits"] -= granted * request.amount
                if granted:
                    account.__dict__["updated_at"] = row["instant"]
                grants[request.operation_id] = Grant(turn <= granted, account)
        return grants

    async def _take(self, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        """Whatever is asked for, of the accounts that are there."""
        rows = await self._run(
            ledger_sql.TAKE_CREDITS,
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
            requests[row["position"] - 1].operation_id: Grant(
                row["granted"], row_to_account(row), row["in_flight"], row["answered"]
            )
            for row in rows
        }

    async def _open_and_take(self, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        refused = await self._openings.open(requests)
        grants: GrantsByOperation = {
            request.operation_id: refused[request.user_id] for request in requests if request.user_id in refused
        }
        opened = [request for request in requests if request.user_id not in refused]
        if opened:
            grants |= await self._take(opened)
        # Whose account is gone between the two was erased.
        return {request.operation_id: AccountErasedError() for request in opened} | grants

    async def _run(self, statement: TextClause, *, repeatable: bool = False, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, repeatable=repeatable, instant=self._clock.instant(), **parameters)
