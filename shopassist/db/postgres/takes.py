"""Credits taken in PostgreSQL, to spend or to hold: many requests in one statement, each answered for itself."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres import ledger_statements
from shopassist.db.postgres.driver import fetch
from shopassist.db.postgres.ledger_rows import Take, account_of
from shopassist.db.postgres.openings import Openings
from shopassist.db.privacy import SubjectHash
from shopassist.db.resilience.failures import Backend, ConnectionLostError
from shopassist.errors import AccountErasedError, StorageUnavailableError
from shopassist.models.ledger import CreditPolicy, Grant

Grants = dict[UUID, Grant | Exception]
Step = Callable[[Sequence[Take]], Awaitable[Grants]]


class Takes:
    """Answers requests for credits. Those of one user in one call ask for the same amount, `alike`."""

    def __init__(self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock, subjects: SubjectHash) -> None:
        """`policy` says how many credits a new account has."""
        self._openings = Openings(manager, policy, clock, subjects)
        self._manager = manager
        self._policy = policy
        self._clock = clock

    @staticmethod
    def alike(request: Take) -> tuple[str, tuple[int, bool]]:
        """Whose request it is, and what those of one user must share, so that grants can be counted."""
        return request.user_id, (request.amount, request.is_guest)

    async def answer(self, requests: Sequence[Take]) -> list[Grant | Exception]:
        """A grant for each, or why there is none. Raises only when nothing has happened."""
        grants: Grants = {}
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

    async def happened(self, operations: dict[UUID, str], backend: Backend | None) -> set[UUID]:
        """Of operations, by id, on their users' accounts, those that were granted or settled.

        `backend` had the statement, and may have it before it yet: it is ended first. Where that cannot be (PgBouncer
        has no real numbers), the locks wait for a statement that still runs.
        """
        user_ids, operation_ids = list(operations.values()), list(operations)
        if backend is not None:
            await self._run(ledger_statements.END, repeatable=True, pid=backend.pid, began=backend.began)

        async def look() -> set[UUID]:
            async with self._manager.session() as session:
                await session.execute(ledger_statements.LOCK, {"user_ids": user_ids})
                parameters = {"user_ids": user_ids, "operation_ids": operation_ids}
                return set((await session.execute(ledger_statements.HAPPENED, parameters)).scalars())

        return await self._manager.resilience.run(look, repeatable=True)

    async def _apart(self, requests: Sequence[Take], error: Exception) -> Grants:
        """One by one, where it is a request that is at fault."""
        if len(requests) == 1 or isinstance(error, StorageUnavailableError):
            return {request.operation_id: error for request in requests}
        grants: Grants = {}
        for request in requests:
            try:
                [grants[request.operation_id]] = await self.answer([request])
            except Exception as own:  # noqa: BLE001 - each is told their own
                grants[request.operation_id] = own
        return grants

    async def _surely(self, step: Step, requests: Sequence[Take]) -> Grants:
        """Take a step, and where the connection was lost on the way, find out what happened before doing the rest."""
        try:
            return await step(requests)
        except ConnectionLostError as lost:
            operations = {request.operation_id: request.user_id for request in requests}
            happened = await self.happened(operations, lost.backend)
        done = [request for request in requests if request.operation_id in happened]
        user_ids = [request.user_id for request in done]
        interval = self._policy.reset_interval
        rows = await self._run(ledger_statements.READ, repeatable=True, user_ids=user_ids, interval=interval)
        accounts = {row["user_id"]: row for row in rows}
        grants: Grants = {
            request.operation_id: Grant(True, account_of(accounts[request.user_id]), answered=None) for request in done
        }
        rest = [request for request in requests if request.operation_id not in happened]
        return grants | (await step(rest) if rest else {})

    async def _spend(self, requests: Sequence[Take]) -> Grants:
        """Where all is to be spent, what can be decided without a reset, a hold or a new account."""
        if any(request.is_hold or not request.amount for request in requests):
            return {}
        asked: Counter[str] = Counter()
        turns = []
        for request in requests:
            asked[request.user_id] += 1
            turns.append(asked[request.user_id])
        rows = await self._run(
            ledger_statements.SPEND,
            user_ids=[request.user_id for request in requests],
            guests=[request.is_guest for request in requests],
            amounts=[request.amount for request in requests],
            turns=turns,
            operation_ids=[request.operation_id for request in requests],
            descriptions=[request.description for request in requests],
            interval=self._policy.reset_interval,
        )
        accounts = {row["user_id"]: row for row in rows}
        grants: Grants = {}
        for request, turn in zip(requests, turns, strict=True):
            row = accounts.get(request.user_id)
            if row is not None:
                account = account_of(row)
                most = account.available_credits // request.amount if account.is_guest or not request.is_guest else 0
                granted = min(asked[request.user_id], most)
                account.__dict__["available_credits"] -= granted * request.amount
                if granted:
                    account.__dict__["updated_at"] = row["instant"]
                grants[request.operation_id] = Grant(turn <= granted, account)
        return grants

    async def _take(self, requests: Sequence[Take]) -> Grants:
        """Whatever is asked for, of the accounts that are there."""
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
            requests[row["position"] - 1].operation_id: Grant(
                row["granted"], account_of(row), row["in_flight"], row["answered"]
            )
            for row in rows
        }

    async def _open_and_take(self, requests: Sequence[Take]) -> Grants:
        refused = await self._openings.open(requests)
        grants: Grants = {
            request.operation_id: refused[request.user_id] for request in requests if request.user_id in refused
        }
        opened = [request for request in requests if request.user_id not in refused]
        if opened:
            grants |= await self._take(opened)
        # Whose account is gone between the two was erased.
        return {request.operation_id: AccountErasedError() for request in opened} | grants

    async def _run(self, statement: TextClause, *, repeatable: bool = False, **parameters: Any) -> Sequence[Any]:
        return await fetch(self._manager, statement, repeatable=repeatable, instant=self._clock.instant(), **parameters)
