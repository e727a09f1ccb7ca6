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
    """A request to hold or deduct credits. An amount of 0 only reads the account, after a reset that is due.

    `started_at` is when the caller's request was received, by `time.monotonic()`.
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
    started_at: float = field(default_factory=get_request_start)


@dataclass(frozen=True, slots=True)
class HoldRelease:
    """The end of a hold: settled, or voided if there is no settlement."""

    hold_id: UUID
    user_id: str
    settlement: Settlement | None = None


ACCOUNT_COLUMNS = tuple(column.key for column in class_mapper(UserCredits).column_attrs)
create_account_instance = class_mapper(UserCredits).class_manager.new_instance


def row_to_account(row: Any) -> UserCredits:
    """Return the account in a row with all columns. Like the ORM, skip validation."""
    account: UserCredits = create_account_instance()
    account.__dict__.update({column: row[column] for column in ACCOUNT_COLUMNS})
    return account


NewAccounts = dict[str, tuple[CreditRequest, InitialBalance]]
GrantsByOperation = dict[UUID, Grant | Exception]
RequestStep = Callable[[Sequence[CreditRequest]], Awaitable[GrantsByOperation]]


class CreditRequestHandler:
    """Executes batches of requests for credits. In a batch, requests of one user have the same `group_key`."""

    def __init__(
        self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock, hash_user: UserHashFunction
    ) -> None:
        """`hash_user` finds the erasures of a user who has no account."""
        self._manager = manager
        self._policy = policy
        self._clock = clock
        self._hash_user = hash_user

    @staticmethod
    def group_key(request: CreditRequest) -> tuple[str, tuple[int, bool]]:
        """Return the user, and what requests of one user must share so that SQL can count their grants."""
        return request.user_id, (request.amount, request.is_guest)

    async def execute(self, requests: Sequence[CreditRequest]) -> list[Grant | Exception]:
        """Return a grant or an error for each request. Raise only if nothing has been committed."""
        grants: GrantsByOperation = {}
        for step in (self._deduct, self._take, self._create_and_take):
            rest = [request for request in requests if request.operation_id not in grants]
            if rest:
                try:
                    grants |= await self._execute_idempotently(step, rest)
                except Exception as error:
                    if not grants:
                        raise
                    # The other requests are committed, and their callers must get the grants.
                    grants |= await self._execute_singly(rest, error)
        return [grants[request.operation_id] for request in requests]

    async def find_committed(self, operations: dict[UUID, str], backend: ServerProcess | None) -> set[UUID]:
        """Return which operations, by id and user id, were granted or settled.

        `backend` executed the statement and may still do so: it is terminated first. Where that is not possible
        (PgBouncer hides the process ids), the locks wait for a statement that still runs.
        """
        user_ids, operation_ids = list(operations.values()), list(operations)
        if backend is not None:
            await self._run(ledger_sql.TERMINATE_BACKEND, repeatable=True, pid=backend.pid, began=backend.started_at)

        async def read() -> set[UUID]:
            async with self._manager.session() as session:
                await session.execute(ledger_sql.LOCK_ACCOUNTS, {"user_ids": user_ids})
                parameters = {"user_ids": user_ids, "operation_ids": operation_ids}
                return set((await session.execute(ledger_sql.SELECT_COMMITTED_OPERATIONS, parameters)).scalars())

        return await self._manager.resilience.run(read, repeatable=True)

    async def _execute_singly(self, requests: Sequence[CreditRequest], error: Exception) -> GrantsByOperation:
        """Execute each request alone after a batch failed, so that a faulty request fails alone."""
        if len(requests) == 1 or isinstance(error, StorageUnavailableError):
            return {request.operation_id: error for request in requests}
        grants: GrantsByOperation = {}
        for request in requests:
            try:
                [grants[request.operation_id]] = await self.execute([request])
            except Exception as own:  # noqa: BLE001 - each caller gets the error of their own request
                grants[request.operation_id] = own
        return grants

    async def _execute_idempotently(self, step: RequestStep, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        """Execute a step. If the connection is lost, find what was committed before executing the rest."""
        try:
            return await step(requests)
        except ConnectionLostError as lost:
            operations = {request.operation_id: request.user_id for request in requests}
            committed = await self.find_committed(operations, lost.backend)
        done = [request for request in requests if request.operation_id in committed]
        user_ids = [request.user_id for request in done]
        interval = self._policy.reset_interval
        rows = await self._run(ledger_sql.SELECT_ACCOUNTS, repeatable=True, user_ids=user_ids, interval=interval)
        accounts = {row["user_id"]: row for row in rows}
        grants: GrantsByOperation = {
            request.operation_id: Grant(True, row_to_account(accounts[request.user_id]), already_answered=None)
            for request in done
        }
        rest = [request for request in requests if request.operation_id not in committed]
        return grants | (await step(rest) if rest else {})

    async def _deduct(self, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        """Execute a batch that only deducts, for accounts that exist and are not due for a reset."""
        if any(request.is_hold or not request.amount for request in requests):
            return {}
        counts: Counter[str] = Counter()
        turns = []
        for request in requests:
            counts[request.user_id] += 1
            turns.append(counts[request.user_id])
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
                may_deduct = account.is_guest or not request.is_guest
                affordable = account.available_credits // request.amount if may_deduct else 0
                granted = min(counts[request.user_id], affordable)
                account.__dict__["available_credits"] -= granted * request.amount
                if granted:
                    account.__dict__["updated_at"] = row["instant"]
                grants[request.operation_id] = Grant(turn <= granted, account)
        return grants

    async def _take(self, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        """Execute a batch of holds, deductions and reads, for accounts that exist."""
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
                row["granted"], row_to_account(row), row["is_in_progress"], row["already_answered"]
            )
            for row in rows
        }

    async def _create_and_take(self, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        async def create() -> dict[str, ShopAssistError]:
            async with self._manager.session() as session:
                return await self._create_accounts(session, requests)

        refused = await self._manager.resilience.run(create, repeatable=True)
        grants: GrantsByOperation = {
            request.operation_id: refused[request.user_id] for request in requests if request.user_id in refused
        }
        created = [request for request in requests if request.user_id not in refused]
        if created:
            grants |= await self._take(created)
        # An account that is missing now was erased between the two steps.
        return {request.operation_id: AccountErasedError() for request in created} | grants

    async def _create_accounts(
        self, session: AsyncSession, requests: Sequence[CreditRequest]
    ) -> dict[str, ShopAssistError]:
        """Create the missing accounts; return the errors of refused ones by user id."""
        hashes = {request.user_id: self._hash_user(request.user_id) for request in requests}
        await session.execute(account_sql.LOCK_SUBJECTS_SHARED, {"subjects": list(hashes.values())})
        histories = await self._read_erasure_histories(session, list(hashes.values()))
        new: NewAccounts = {}
        refused: dict[str, ShopAssistError] = {}
        for request in requests:
            request_age = timedelta(seconds=time.monotonic() - request.started_at)
            try:
                balance = compute_initial_balance(
                    request.is_guest, histories[hashes[request.user_id]], self._policy, request_age
                )
            except ShopAssistError as error:
                refused[request.user_id] = error
            else:
                new.setdefault(request.user_id, (request, balance))
        existing = await self._insert_accounts(session, new) if new else set()
        refused |= {user_id: GuestLimitError() for user_id in new.keys() - existing}
        # Of several requests of one user, one may be refused and another create the account.
        return {user_id: error for user_id, error in refused.items() if user_id not in existing}

    async def _insert_accounts(self, session: AsyncSession, new: NewAccounts) -> set[str]:
        """Insert the accounts that are missing and allowed; return the user ids that have an account afterwards."""
        requests, balances = zip(*new.values(), strict=True)
        parameters = {
            "instant": self._clock.instant(),
            "user_ids": list(new),
            "guests": [request.is_guest for request in requests],
            "credits": [balance.available_credits for balance in balances],
            "most": [balance.max_credits for balance in balances],
            "resets": [balance.last_reset for balance in balances],
            "networks": [request.network if request.is_guest else None for request in requests],
            "guests_per_network": self._policy.guest_accounts_per_network,
        }
        for spare in (await session.execute(account_sql.INSERT_ACCOUNTS, parameters)).mappings().all():
            await session.execute(account_sql.DECREMENT_GUEST_COUNT, dict(spare))
        existing = await session.execute(account_sql.SELECT_EXISTING_ACCOUNTS, {"user_ids": list(new)})
        return set(existing.scalars())

    async def _read_erasure_histories(self, session: AsyncSession, hashes: list[str]) -> dict[str, ErasureHistory]:
        parameters = {"subjects": hashes, "instant": self._clock.instant()}
        histories = {}
        for row in (await session.execute(account_sql.SELECT_ERASURE_HISTORY, parameters)).mappings():
            balance = {name: row[name] for name in ErasedBalance.model_fields}
            histories[row["subject_hash"]] = ErasureHistory(
                row["instant"],
                row["is_erasing"],
                row["erased_at"],
                None if row["forget_at"] is None else ErasedBalance(**balance),
            )
        return histories

    async def _run(self, statement: TextClause, *, repeatable: bool = False, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, repeatable=repeatable, instant=self._clock.instant(), **parameters)
