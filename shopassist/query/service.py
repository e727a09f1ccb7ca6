"""Answer a question: look in the cache, hold a credit, ask the assistant, settle or void.

Concurrent callers with the same question share one piece of work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil
from typing import Any, Protocol
from uuid import uuid4

import structlog

from shopassist.cache.service import QueryCacheService, StaleAnswers
from shopassist.credits.models import UserCredits
from shopassist.credits.ports import CreditLedger, CreditRequest, Grant, IdempotencyRecord, IdempotencyStore, Settlement
from shopassist.credits.service import CreditService, find_response
from shopassist.errors import (
    ClientGoneError,
    CreditsExhaustedError,
    KeyInFlightError,
    KeyReusedError,
    RateLimitedError,
    ShopAssistError,
    StorageUnavailableError,
)
from shopassist.identity.rate_limits import RequestQuota
from shopassist.query.models import (
    Answer,
    ConversationContext,
    QueryOutcome,
    QueryReply,
    QueryRequest,
    QueryResponse,
    Question,
    WorkOutcome,
)
from shopassist.tracing import span

logger = structlog.get_logger(__name__)

QUESTION_COST = 1
"""Credits per answered question."""

POLL_SECONDS = 0.05
"""Interval of looking whether work in another process has ended."""

MAX_ATTEMPTS = 3
"""Attempts to answer a question; each but the first follows other work on it that ended without an answer."""

ASSISTANT_FAILED = "The assistant could not answer this time. Nothing was charged; please try again."
FAILED_ANSWER = Answer(recommendations_summary=ASSISTANT_FAILED, degraded=True)
DEDUCTION_DESCRIPTION = "Credit deducted for message"


WaitForDisconnect = Callable[[], Awaitable[object]]
"""Returns once the client has disconnected."""

CLOSE_TIMEOUT_SECONDS = 2.0
"""Time that abandoned work has to end when the process stops."""


@dataclass(slots=True, eq=False)
class SharedTask:
    """Running work, its idempotency key, and the number of callers that wait for it.

    Work is never cancelled, since it moves credits. It ends by itself when `abandoned` is done, that is, when no caller
    waits any more.
    """

    task: asyncio.Task[WorkOutcome]
    idempotency_key: str | None
    abandoned: asyncio.Future[None]
    waiting: int = 0

    async def wait(self, wait_for_disconnect: WaitForDisconnect | None) -> WorkOutcome:
        """Return the outcome of the work, or raise its error; `ClientGoneError` when the client disconnects first."""
        self.waiting += 1
        watch = [asyncio.ensure_future(wait_for_disconnect())] if wait_for_disconnect else []
        try:
            await asyncio.wait([self.task, *watch], return_when=asyncio.FIRST_COMPLETED)
            if not self.task.done():
                raise ClientGoneError
            return self.task.result()
        finally:
            for task in watch:
                task.add_done_callback(consume_exception)
                task.cancel()
            self.waiting -= 1
            if not self.waiting:
                self.abandon()

    def abandon(self) -> None:
        """Tell the work to end."""
        if not self.abandoned.done():
            self.abandoned.set_result(None)


@dataclass(slots=True)
class SingleFlight:
    """Running work by key."""

    _by_key: dict[object, SharedTask] = field(default_factory=dict)
    _all: set[SharedTask] = field(default_factory=set)

    def get(self, key: object) -> SharedTask | None:
        """Return the running work of `key` that can be joined."""
        shared = self._by_key.get(key)
        return None if shared is None or shared.task.done() or shared.abandoned.done() else shared

    def start(
        self,
        key: object,
        work: Callable[[asyncio.Future[None]], Coroutine[Any, Any, WorkOutcome]],
        idempotency_key: str | None,
    ) -> SharedTask:
        """Start `work`, which takes the future `abandoned`."""
        abandoned = asyncio.get_running_loop().create_future()
        shared = SharedTask(asyncio.create_task(work(abandoned)), idempotency_key, abandoned)
        self._by_key[key] = shared
        self._all.add(shared)
        shared.task.add_done_callback(lambda _: self._remove(key, shared))
        return shared

    async def close(self) -> None:
        """Abandon all work and wait until it has ended and its credits are returned."""
        self.abandon()
        if self._all:
            await asyncio.wait({shared.task for shared in self._all}, timeout=CLOSE_TIMEOUT_SECONDS)

    def abandon(self) -> None:
        """Tell all work to end; its callers then get no answer and are not charged."""
        for shared in self._all:
            shared.abandon()

    def _remove(self, key: object, shared: SharedTask) -> None:
        consume_exception(shared.task)
        self._all.discard(shared)
        if self._by_key.get(key) is shared:
            del self._by_key[key]


def consume_exception(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a future, so that asyncio does not log it as never retrieved."""
    if not future.cancelled():
        future.exception()


class Assistant(Protocol):
    """Answers shoppers' questions."""

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """Return the answer to `query`. Raises a `ShopAssistError` when there is none."""


@dataclass(slots=True)
class QueryService:
    """Answers shoppers' questions and charges for the answers; `flights` and `stale` are shared by the process."""

    cache: QueryCacheService
    credits_: CreditService
    ledger: CreditLedger
    replays: IdempotencyStore
    flights: SingleFlight
    stale: StaleAnswers
    assistant: Assistant
    timeout_seconds: float
    """Time limit of the assistant."""

    async def answer(
        self,
        user_id: str,
        is_guest: bool,
        request: QueryRequest,
        idempotency_key: str | None = None,
        wait_for_disconnect: WaitForDisconnect | None = None,
        network: str | None = None,
        quota: RequestQuota | None = None,
    ) -> QueryReply:
        """Answer `request`.

        `quota` is consumed unless the reply is a replay or joins running work of the caller. A caller who
        disconnects no longer waits; work that no caller waits for ends without a charge. A new guest counts against
        the limit of their `network`. While the database is unavailable, an answer kept in memory is given free of
        charge and marked as stale, or else `StorageUnavailableError` is raised.

        Raises `RateLimitedError`, `CreditsExhaustedError`, `SessionRefusedError` (a guest's session id is a registered
        account), `KeyReusedError`, `KeyInFlightError` and `ClientGoneError`.
        """
        context = request.build_context()
        query_hash = self.cache.generate_query_hash(request.query, context.serialize())
        question = Question(user_id, is_guest, request.query, context, query_hash, idempotency_key, network)
        for _ in range(MAX_ATTEMPTS):
            try:
                replay = await self._find_replay(question)
                if replay is not None:
                    return QueryReply(replay, replayed=True)
                if quota is not None:
                    await self._consume_quota(question, quota)
                    quota = None
                reply = await self._find_cached(question)
            except StorageUnavailableError:
                stale = self.stale.find(query_hash)
                if stale is None:
                    raise
                outcome = QueryOutcome(Answer.model_validate_json(stale), account=None, cached=True)
                return QueryReply(self._build_response(question, outcome))
            if reply is not None:
                return reply
            response = await self._work_or_join(question, wait_for_disconnect)
            if response is not None:
                return QueryReply(response)
        outcome = QueryOutcome(FAILED_ANSWER, await self._get_account(question), error=ASSISTANT_FAILED)
        return QueryReply(self._build_response(question, outcome))

    async def _find_replay(self, question: Question) -> QueryResponse | None:
        key = question.idempotency_key
        response = await find_response(self.replays, question.user_id, key, question.query_hash)
        return None if response is None else QueryResponse.model_validate(response)

    async def _consume_quota(self, question: Question, quota: RequestQuota) -> None:
        """Count the question, unless it joins running work of the caller in this or another process."""
        if self.flights.get(question.flight_key):
            return
        try:
            quota.consume()
        except RateLimitedError:
            with suppress(StorageUnavailableError):
                key = question.idempotency_key
                if await self.ledger.list_open_holds(question.user_id, question.query_hash, key):
                    return
            raise

    async def _find_cached(self, question: Question) -> QueryReply | None:
        epoch = self.stale.epoch
        stored = await self.cache.get_cached_result(question.query_hash)
        if stored is None:
            return None
        answer = Answer.model_validate(stored)
        self.stale.add_found(question.query_hash, answer, epoch)
        # The first request under the same key may have stored this answer since its replay was looked for.
        if (replay := await self._find_replay(question)) is not None:
            return QueryReply(replay, replayed=True)
        outcome = QueryOutcome(answer, await self._get_account(question), cached=True)
        return QueryReply(await self._store_replay(question, outcome))

    async def _work_or_join(
        self, question: Question, wait_for_disconnect: WaitForDisconnect | None
    ) -> QueryResponse | None:
        """Work on the question, or join running work on it by the same caller. None: look for its answer again."""
        key = question.idempotency_key
        if key is not None and self.flights.get(question.flight_key):
            await self._is_held(question)
        flight = joined = self.flights.get(question.flight_key)
        if flight is None:
            flight = self.flights.start(question.flight_key, lambda abandoned: self._work(question, abandoned), key)
        elif key is not None and flight.idempotency_key == key:
            raise KeyInFlightError
        try:
            outcome = await flight.wait(wait_for_disconnect)
        except (KeyInFlightError, KeyReusedError):
            if joined:
                return None  # the error is about the key of the caller that started the work
            raise
        if outcome is None:
            return None
        if joined and outcome.charged:
            return await self._store_replay(question, replace(outcome, charged=0))
        return self._build_response(question, outcome)

    async def _work(self, question: Question, abandoned: asyncio.Future[None]) -> WorkOutcome:
        """Hold a credit, ask the assistant, and settle the hold for an answer or void it."""
        hold = CreditRequest(
            operation_id=uuid4(),
            user_id=question.user_id,
            is_guest=question.is_guest,
            amount=QUESTION_COST,
            question_hash=question.query_hash,
            idempotency_key=question.idempotency_key,
            network=question.network,
        )
        grant = await self.ledger.place_hold(hold)
        if grant.already_answered:
            return None
        if not grant.granted:
            await self._wait_for_other_process(question, grant, abandoned)
            return None
        try:
            if grant.already_answered is None and await self._is_answered(question):
                with suppress(ShopAssistError):
                    await self.ledger.void(hold.operation_id, hold.user_id)
                return None
            answer = await self._ask(question, abandoned)
            if answer is not None and answer.chargeable and await self._settle(question, hold, grant.account, answer):
                return QueryOutcome(answer, grant.account, charged=QUESTION_COST)
        except BaseException:
            with suppress(ShopAssistError):
                await self.ledger.void(hold.operation_id, hold.user_id)
            raise
        await self.ledger.void(hold.operation_id, hold.user_id)
        grant.account.available_credits += QUESTION_COST
        return QueryOutcome(answer or FAILED_ANSWER, grant.account, error=None if answer else ASSISTANT_FAILED)

    async def _wait_for_other_process(self, question: Question, grant: Grant, abandoned: asyncio.Future[None]) -> None:
        """Wait while another process works on the question. Raises `CreditsExhaustedError` when none does."""
        account = grant.account if grant.is_in_progress else await self._get_account(question)
        waited = grant.is_in_progress
        while await self._is_held(question) and not abandoned.done():
            waited = True
            await asyncio.sleep(POLL_SECONDS)
        if not waited and account.available_credits < QUESTION_COST and not await self._is_answered(question):
            raise self._build_exhausted_error(account, grant.instant)

    async def _is_held(self, question: Question) -> bool:
        """Return whether a hold for the question is open under no key or another one.

        Raises `KeyInFlightError` when one is open under the question's key, `KeyReusedError` if for another question.
        """
        holds = await self.ledger.list_open_holds(question.user_id, question.query_hash, question.idempotency_key)
        for hold in holds:
            if hold.idempotency_key is not None and hold.idempotency_key == question.idempotency_key:
                raise KeyInFlightError if hold.question_hash == question.query_hash else KeyReusedError
        return bool(holds)

    async def _is_answered(self, question: Question) -> bool:
        return await self._find_replay(question) is not None or await self.cache.is_cached(question.query_hash)

    async def _ask(self, question: Question, abandoned: asyncio.Future[None]) -> Answer | None:
        """Return the assistant's answer; None when it failed, timed out or no caller waits any more."""
        with span("assistant"):
            task = asyncio.ensure_future(self.assistant.answer(question.query, question.context))
            ends: list[asyncio.Future[Any]] = [task, abandoned]
            try:
                await asyncio.wait(ends, timeout=self.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
                if abandoned.done():
                    return None
                if not task.done() or task.cancelled():
                    raise TimeoutError  # noqa: TRY301 - handled like every failure
                return task.result()
            except Exception as failure:  # noqa: BLE001 - the credit is returned after any failure
                logger.warning("assistant_failed", error=type(failure).__name__)
                return None
            finally:
                task.add_done_callback(consume_exception)
                task.cancel()

    async def _settle(self, question: Question, hold: CreditRequest, account: UserCredits, answer: Answer) -> bool:
        """Settle the hold and store the answer in one commit; return False when the hold has expired."""
        response = self._build_response(question, QueryOutcome(answer, account, charged=QUESTION_COST))
        stored = self.cache.to_store(question.query_hash, answer)
        epoch = self.stale.epoch
        replay = build_replay(question, response)
        settled = await self.ledger.settle(
            Settlement(hold.operation_id, hold.user_id, DEDUCTION_DESCRIPTION, stored, replay)
        )
        if settled:
            self.stale.add_new(stored, epoch)
        return settled

    async def _store_replay(self, question: Question, outcome: QueryOutcome) -> QueryResponse:
        """Return the response, stored under the question's key."""
        response = self._build_response(question, outcome)
        if replay := build_replay(question, response):
            await self.replays.store(replay)
        return response

    async def _get_account(self, question: Question) -> UserCredits:
        return await self.credits_.get_caller_account(question.user_id, question.is_guest, question.network)

    def _build_response(self, question: Question, outcome: QueryOutcome) -> QueryResponse:
        account = outcome.account
        return question.build_response(outcome, None if account is None else self.credits_.build_status(account))

    def _build_exhausted_error(self, account: UserCredits, now: datetime | None) -> CreditsExhaustedError:
        """Return the error, which tells the caller how to get credits and, if known, in how many seconds."""
        status = self.credits_.build_status(account)
        when = status.next_reset_time
        description = (
            "You have used all your guest credits. Log in to get more."
            if when is None
            else f"You have used all your credits. They come back at {when:%Y-%m-%d %H:%M} UTC."
        )
        shown = status.model_dump(include={"available_credits", "max_credits", "is_guest"})
        retry_after = ceil((when - now).total_seconds()) if when and now else None
        return CreditsExhaustedError(description, retry_after, **shown, error_description=description)


def build_replay(question: Question, response: QueryResponse) -> IdempotencyRecord | None:
    """Return the record of a response under the question's key, if it has one."""
    key = question.idempotency_key
    if key is None:
        return None
    return IdempotencyRecord(question.user_id, key, question.query_hash, response.model_dump(mode="json"))
