"""Credit ledger in PostgreSQL: batched, guarded statements, each its own transaction."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import to_json
from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import class_mapper

from shopassist.audit.models import ADJUST_CREDITS
from shopassist.credits.models import CreditPolicy, ErasedBalance, ErasureHistory, UserCredits, build_account
from shopassist.credits.ports import Adjustment, CreditRequest, Grant, LedgerCounters, OpenHold, Settlement
from shopassist.credits.postgres import statements
from shopassist.db.batcher import Batcher
from shopassist.db.database import DatabaseManager
from shopassist.db.failures import ConnectionLostError, ServerProcess
from shopassist.db.ports import Clock, UserHashFunction
from shopassist.db.statements import fetch, fetch_without_deadline
from shopassist.errors import AccountErasedError, ShopAssistError, StorageUnavailableError

REQUEST_FIELDS = tuple(CreditRequest.__dataclass_fields__)
ACCOUNT_COLUMNS = tuple(column.key for column in class_mapper(UserCredits).column_attrs)
create_account_instance = class_mapper(UserCredits).class_manager.new_instance


def build_arrays(rows: Sequence[Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return an array for each field, as the statements for batches bind them."""
    return {name: list(map(attrgetter(name), rows)) for name in fields}


def row_to_account(row: Any) -> UserCredits:
    """Return the account in a row with all columns. Like the ORM, skip validation."""
    account: UserCredits = create_account_instance()
    account.__dict__.update({column: row[column] for column in ACCOUNT_COLUMNS})
    return account


GrantsByOperation = dict[UUID, Grant | Exception]
RequestStep = Callable[[Sequence[CreditRequest]], Awaitable[GrantsByOperation]]


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
        self._hash_user = hash_user
        self._counters = counters
        observe = manager.batch_sizes.observe
        self._account_reads = Batcher(self._read, on_batch=lambda size: observe(size, "account"))
        self._credit_requests = Batcher(
            self._execute,
            # Requests of one user in a statement share these, so that SQL can count how many of them are granted.
            group_of=lambda request: (request.user_id, (request.amount, request.is_guest)),
            on_batch=lambda size: observe(size, "take"),
        )
        self._settlements = Batcher(
            self._close,
            # Two ends of one hold never share a statement: its result could not tell which of them closed it.
            group_of=lambda settlement: (settlement.hold_id, object()),
            on_batch=lambda size: observe(size, "close"),
        )

    async def get_or_create_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        account = await self._account_reads.submit(user_id)
        if account is not None:
            return account
        request = CreditRequest(uuid4(), user_id, is_guest, 0, network=network, is_hold=False)
        return (await self._credit_requests.submit(request)).account

    async def register_guest(self, user_id: str) -> UserCredits:
        await self._refill(statements.REGISTER_ACCOUNT, user_id=user_id)
        return await self.get_or_create_account(user_id, is_guest=False)

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        request = CreditRequest(uuid4(), user_id, is_guest, amount, is_hold=False, description=description)
        return self._counters.record(await self._credit_requests.submit(request), is_hold=False)

    async def place_hold(self, request: CreditRequest) -> Grant:
        return self._counters.record(await self._credit_requests.submit(request), is_hold=True)

    async def list_open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        parameters = {"user_id": user_id, "question_hash": question_hash, "key": idempotency_key}
        return [OpenHold(*row) for row in await self._run(statements.SELECT_OPEN_HOLDS, repeatable=True, **parameters)]

    async def settle(self, settlement: Settlement) -> bool:
        settled = await self._settlements.submit(settlement)
        self._counters.settled += settled
        return settled

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        voided = await self._settlements.submit(Settlement(hold_id, user_id))
        self._counters.voided += voided
        return voided

    async def void_expired(self, limit: int = 1000) -> int:
        rows = await self._run(statements.SELECT_EXPIRED_HOLDS, repeatable=True, limit=limit)
        expired = sum(await self._close([Settlement(*row) for row in rows])) if rows else 0
        self._counters.expired += expired
        return expired

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        try:
            return await self._adjust_once(adjustment)
        except ConnectionLostError as lost:
            if not await self.find_committed({adjustment.operation_id: adjustment.user_id}, lost.backend):
                return await self._adjust_once(adjustment)
        return await self.get_or_create_account(adjustment.user_id, is_guest=False)

    async def reset(self, user_id: str) -> None:
        await self._refill(statements.RESET_ACCOUNT, user_id=user_id)

    async def reset_due_accounts(self, limit: int = 1000) -> int:
        interval = self._policy.reset_interval
        return await self._refill(statements.RESET_DUE_ACCOUNTS, interval=interval, limit=limit)

    async def delete_old_guest_counts(self, limit: int = 1000) -> int:
        instant = self._clock.instant()
        statement = statements.DELETE_OLD_GUEST_COUNTS
        return len(await fetch_without_deadline(self._manager, statement, limit=limit, instant=instant))

    async def find_committed(self, operations: dict[UUID, str], backend: ServerProcess | None) -> set[UUID]:
        """Return which operations, by id and user id, were granted or settled.

        `backend` executed the statement and may still do so: it is terminated first. Where that is not possible
        (PgBouncer hides the process ids), the locks wait for a statement that still runs.
        """
        parameters = {"user_ids": list(operations.values()), "operation_ids": list(operations)}
        if backend is not None:
            await self._run(statements.TERMINATE_BACKEND, repeatable=True, pid=backend.pid, began=backend.started_at)

        async def read(session: AsyncSession) -> set[UUID]:
            await session.execute(statements.LOCK_ACCOUNTS, parameters)
            return set((await session.execute(statements.SELECT_COMMITTED_OPERATIONS, parameters)).scalars())

        return await self._manager.run(read, repeatable=True)

    async def _adjust_once(self, adjustment: Adjustment) -> UserCredits | None:
        rows = await self._run(
            statements.ADJUST_ACCOUNT,
            act=ADJUST_CREDITS,
            replay_lifetime=self._policy.replay_lifetime,
            **asdict(adjustment),
        )
        return row_to_account(rows[0]) if rows else None

    async def _fetch_accounts(self, user_ids: Sequence[str]) -> dict[str, Any]:
        """Return the rows of accounts by user id, with `due` for those due for a reset."""
        parameters = {"user_ids": list(set(user_ids)), "interval": self._policy.reset_interval}
        rows = await self._run(statements.SELECT_ACCOUNTS, repeatable=True, **parameters)
        return {row["user_id"]: row for row in rows}

    async def _read(self, user_ids: Sequence[str]) -> list[UserCredits | None]:
        """Return each account, or None if it is missing or due for a reset."""
        rows = await self._fetch_accounts(user_ids)
        found = [rows.get(user_id) for user_id in user_ids]
        return [None if row is None or row["due"] else row_to_account(row) for row in found]

    async def _close(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Close holds; return which were closed by this call. Safe to repeat, so it is after a lost connection."""
        try:
            closed = await self._close_once(settlements)
        except ConnectionLostError:
            closed = await self._close_once(settlements)
            unsure = [one for one in settlements if one.hold_id not in closed]
            settled = await self.find_committed({one.hold_id: one.user_id for one in unsure}, None)
            closed |= {one.hold_id for one in unsure if (one.hold_id in settled) == (one.description is not None)}
        return [one.hold_id in closed for one in settlements]

    async def _close_once(self, settlements: Sequence[Settlement]) -> set[UUID]:
        answers = [settlement.answer for settlement in settlements]
        replays = [settlement.replay for settlement in settlements]
        rows = await self._run(
            statements.CLOSE_HOLDS,
            hold_ids=[settlement.hold_id for settlement in settlements],
            user_ids=[settlement.user_id for settlement in settlements],
            settled=[settlement.description is not None for settlement in settlements],
            descriptions=[settlement.description for settlement in settlements],
            hashes=[answer and answer.query_hash for answer in answers],
            results=[answer and answer.result for answer in answers],
            lifetimes=[answer and answer.lifetime for answer in answers],
            keys=[replay and replay.idempotency_key for replay in replays],
            request_hashes=[replay and replay.request_hash for replay in replays],
            responses=[replay and to_json(replay.response).decode() for replay in replays],
            replay_lifetime=self._policy.replay_lifetime,
        )
        return {row["hold_id"] for row in rows}

    async def _execute(self, requests: Sequence[CreditRequest]) -> list[Grant | Exception]:
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

    async def _execute_singly(self, requests: Sequence[CreditRequest], error: Exception) -> GrantsByOperation:
        """Execute each request alone after a batch failed, so that a faulty request fails alone."""
        if len(requests) == 1 or isinstance(error, StorageUnavailableError):
            return {request.operation_id: error for request in requests}
        grants: GrantsByOperation = {}
        for request in requests:
            try:
                [grants[request.operation_id]] = await self._execute([request])
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
        accounts = await self._fetch_accounts([operations[operation_id] for operation_id in committed])
        grants: GrantsByOperation = {
            operation_id: Grant(True, row_to_account(accounts[operations[operation_id]]), already_answered=None)
            for operation_id in committed
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
        arrays = build_arrays(requests, REQUEST_FIELDS)
        rows = await self._run(statements.DEDUCT_CREDITS, turn=turns, interval=self._policy.reset_interval, **arrays)
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
            statements.TAKE_CREDITS,
            interval=self._policy.reset_interval,
            registered_credits=self._policy.max_registered_credits,
            lifetime=self._policy.hold_lifetime,
            **build_arrays(requests, REQUEST_FIELDS),
        )
        return {
            requests[row["position"] - 1].operation_id: Grant(
                row["granted"], row_to_account(row), row["is_in_progress"], row["already_answered"], row["instant"]
            )
            for row in rows
        }

    async def _create_and_take(self, requests: Sequence[CreditRequest]) -> GrantsByOperation:
        refused = await self._manager.run(lambda session: self._create_accounts(session, requests), repeatable=True)
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
        """Create the missing accounts that are allowed; return the errors of refused ones by user id."""
        hashes = {request.user_id: self._hash_user(request.user_id) for request in requests}
        histories = await self._read_erasure_histories(session, list(hashes.values()))
        new: dict[str, tuple[UserCredits, str | None]] = {}
        refused: dict[str, ShopAssistError] = {}
        for request in requests:
            user_id, is_guest, history = request.user_id, request.is_guest, histories[hashes[request.user_id]]
            try:
                account = build_account(user_id, is_guest, history, self._policy, request.started_at)
            except ShopAssistError as error:
                refused[user_id] = error
            else:
                new.setdefault(user_id, (account, request.network if is_guest else None))
        existing = await self._insert_accounts(session, new) if new else set()
        for user_id in new.keys() - existing:
            refused[user_id] = self._counters.refuse_guest(histories[hashes[user_id]].now)
        # Of several requests of one user, one may be refused and another create the account.
        return {user_id: error for user_id, error in refused.items() if user_id not in existing}

    async def _read_erasure_histories(self, session: AsyncSession, hashes: list[str]) -> dict[str, ErasureHistory]:
        parameters = {"subjects": hashes, "instant": self._clock.instant()}
        await session.execute(statements.LOCK_SUBJECTS_SHARED, parameters)
        histories = {}
        for row in (await session.execute(statements.SELECT_ERASURE_HISTORY, parameters)).mappings():
            columns = {name: row[name] for name in ErasedBalance.model_fields}
            balance = None if row["forget_at"] is None else ErasedBalance(**columns)
            history = ErasureHistory(row["instant"], row["is_erasing"], row["erased_at"], balance)
            histories[row["subject_hash"]] = history
        return histories

    async def _insert_accounts(
        self, session: AsyncSession, new: Mapping[str, tuple[UserCredits, str | None]]
    ) -> set[str]:
        """Insert the accounts that are missing and allowed, given with the networks of guests.

        Return the user ids that have an account afterwards.
        """
        accounts, networks = zip(*new.values(), strict=True)
        parameters = build_arrays(accounts, ACCOUNT_COLUMNS) | {
            "network": networks,
            "guests_per_network": self._policy.guest_accounts_per_network,
            "instant": self._clock.instant(),
        }
        for spare in (await session.execute(statements.INSERT_ACCOUNTS, parameters)).mappings().all():
            await session.execute(statements.DECREMENT_GUEST_COUNT, dict(spare))
        existing = await session.execute(statements.SELECT_EXISTING_ACCOUNTS, {"user_ids": list(new)})
        return set(existing.scalars())

    async def _refill(self, statement: TextClause, **parameters: Any) -> int:
        credits_ = self._policy.max_registered_credits
        [row] = await self._run(statement, repeatable=True, registered_credits=credits_, **parameters)
        return int(row[0])

    async def _run(self, statement: TextClause, *, repeatable: bool = False, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, repeatable=repeatable, instant=self._clock.instant(), **parameters)
