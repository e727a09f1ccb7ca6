"""Answer a question: look in the cache, hold a credit, ask the assistant, settle or void."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn
from uuid import uuid4

import structlog

from shopassist.cache.fallback import StaleAnswers
from shopassist.cache.service import QueryCacheService
from shopassist.credits.models import UserCredits
from shopassist.credits.ports import CreditLedger, Grant, HoldRequest, IdempotencyStore, Settlement
from shopassist.credits.service import CreditService
from shopassist.errors import (
    KeyInFlightError,
    KeyReusedError,
    RateLimitedError,
    ShopAssistError,
    StorageUnavailableError,
)
from shopassist.query.models import Answer, ConversationContext, QueryRequest, QueryResponse
from shopassist.query.ports import Assistant
from shopassist.query.responses import (
    QueryOutcome,
    QueryReply,
    Question,
    build_context,
    build_exhausted_error,
    build_replay,
    build_response,
    build_stale_response,
    serialize_context,
)
from shopassist.query.single_flight import DisconnectWait, SingleFlight, consume_exception, wait_first
from shopassist.tracing import span

logger = structlog.get_logger(__name__)

Admit = Callable[[], Awaitable[None]]
"""Counts new work that a caller asks for. Raises when it is too much."""


async def ask_assistant(
    assistant: Assistant,
    query: str,
    context: ConversationContext,
    timeout_seconds: float,
    abandoned: asyncio.Future[None],
) -> Answer | None:
    """The assistant's answer, or None when it failed, took too long, or nobody waits for it any more."""
    asking = asyncio.ensure_future(assistant.answer(query, context))
    try:
        await wait_first(asking, abandoned, seconds=timeout_seconds)
        if abandoned.done():
            return None
        if not asking.done() or asking.cancelled():
            raise TimeoutError  # noqa: TRY301 - as any failure
        return asking.result()
    except Exception as failure:  # noqa: BLE001 - whatever failed, the credit goes back
        logger.warning("assistant_failed", error=type(failure).__name__)
        return None
    finally:
        asking.add_done_callback(consume_exception)
        asking.cancel()


QUESTION_COST = 1
"""Credits that one message costs."""

POLL_SECONDS = 0.05
"""How often the outcome of work in another process is looked for."""

MAX_ATTEMPTS = 3
"""How often a question is looked at before it is given up: each time, work of others on it came to nothing."""

ASSISTANT_FAILED = "The assistant could not answer this time. Nothing was charged; please try again."
FAILED_ANSWER = Answer(recommendations_summary=ASSISTANT_FAILED, degraded=True)
DEDUCTION_DESCRIPTION = "Credit deducted for message"


class RetryQuestionError(Exception):
    """Other work on the question has ended meanwhile."""


class QueryService:
    """Answers shoppers' questions and charges for those it could answer."""

    def __init__(
        self,
        cache: QueryCacheService,
        credits_: CreditService,
        ledger: CreditLedger,
        replays: IdempotencyStore,
        flights: SingleFlight[QueryOutcome],
        stale: StaleAnswers,
        assistant: Assistant,
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds` bounds the assistant's work on one question; `flights` and `stale` are the process's."""
        self._cache = cache
        self._credits = credits_
        self._ledger = ledger
        self._replays = replays
        self._flights = flights
        self._stale = stale
        self._assistant = assistant
        self._timeout_seconds = timeout_seconds

    async def answer(
        self,
        user_id: str,
        is_guest: bool,
        request: QueryRequest,
        idempotency_key: str | None = None,
        gone: DisconnectWait | None = None,
        network: str | None = None,
        admit: Admit | None = None,
    ) -> QueryReply:
        """The answer to `request`; work that only callers wait for who are `gone` ends without a charge.

        A new guest counts for their `network`. `admit` may refuse (`RateLimitedError`) what is no replay and joins
        nothing.

        With the database away an answer in memory is given for nothing, marked as stale; otherwise
        `StorageUnavailableError` is raised.

        Raises `CreditsExhaustedError` when it is not cached and no credit is left, `SessionRefusedError` when a guest
        names a registered account, `KeyReusedError` and `KeyInFlightError` as their names say, and `ClientGoneError`.
        """
        context = build_context(request)
        query_hash = self._cache.generate_query_hash(request.query, serialize_context(context))
        question = Question(user_id, is_guest, request.query, context, query_hash, idempotency_key, network)
        for _ in range(MAX_ATTEMPTS):
            try:
                replayed = await self._replayed(question)
                if replayed is not None:
                    return QueryReply(replayed, replayed=True)
                if admit is not None:
                    await self._admitted(question, admit)
                    admit = None
                found = await self._cached(question)
            except StorageUnavailableError:
                stale = self._stale.find(query_hash)
                if stale is None:
                    raise
                return QueryReply(build_stale_response(question, stale))
            if found is not None:
                return found
            try:
                return QueryReply(await self._worked_out(question, gone))
            except RetryQuestionError:
                continue
        account = await self._credits.get_caller_account(user_id, is_guest, network)
        return QueryReply(
            build_response(question, QueryOutcome(FAILED_ANSWER, account, error=ASSISTANT_FAILED), self._credits)
        )

    async def _admitted(self, question: Question, admit: Admit) -> None:
        """Raises what `admit` raises, unless the question joins work of the caller, in this process or another."""
        if self._flights.get(question.about):
            return
        try:
            await admit()
        except RateLimitedError:
            with suppress(StorageUnavailableError):
                key = question.idempotency_key
                if await self._ledger.list_open_holds(question.user_id, question.query_hash, key):
                    return
            raise

    async def _cached(self, question: Question) -> QueryReply | None:
        """What the cache has."""
        epoch = self._stale.epoch
        stored = await self._cache.get_cached_result(question.query_hash)
        if stored is None:
            return None
        answer = Answer.model_validate(stored)
        self._stale.keep_found(question.query_hash, answer, epoch)
        account = await self._credits.get_caller_account(question.user_id, question.is_guest, question.network)
        return QueryReply(await self._remembered(question, QueryOutcome(answer, account, cached=True)))

    async def _replayed(self, question: Question) -> QueryResponse | None:
        if question.idempotency_key is None:
            return None
        replay = await self._replays.get(question.user_id, question.idempotency_key)
        if replay is None:
            return None
        if replay.request_hash != question.query_hash:
            raise KeyReusedError
        return QueryResponse.model_validate(replay.response)

    async def _remembered(self, question: Question, outcome: QueryOutcome) -> QueryResponse:
        """The response, kept under the question's key, which no settlement did."""
        response = build_response(question, outcome, self._credits)
        if question.idempotency_key is not None:
            await self._replays.store(build_replay(question, response))
        return response

    async def _worked_out(self, question: Question, gone: DisconnectWait | None) -> QueryResponse:
        """The outcome of new work, or of work about the same question by the same caller that is under way.

        Raises `RetryQuestionError` when it may be found elsewhere by now.
        """
        about = question.about
        key = question.idempotency_key
        if key is not None and self._flights.get(about):
            await self._refuse_key_in_flight(question)
        flight = self._flights.get(about)
        if flight is None:
            flight = self._flights.begin(about, lambda abandoned: self._work(question, abandoned), key)
            return build_response(question, await self._flights.wait(flight, gone), self._credits)
        if key is not None and flight.idempotency_key == key:
            raise KeyInFlightError
        try:
            joined = await self._flights.wait(flight, gone)
        except (KeyInFlightError, KeyReusedError):
            # That was about the key of whoever began the work.
            raise RetryQuestionError from None
        outcome = QueryOutcome(joined.answer, joined.account, error=joined.error)
        if not joined.charged:
            return build_response(question, outcome, self._credits)
        return await self._remembered(question, outcome)

    async def _work(self, question: Question, abandoned: asyncio.Future[None]) -> QueryOutcome:
        hold = HoldRequest(
            *(uuid4(), question.user_id, question.is_guest, QUESTION_COST, question.query_hash),
            idempotency_key=question.idempotency_key,
            network=question.network,
        )
        grant = await self._ledger.place_hold(hold)
        if grant.already_answered:
            raise RetryQuestionError  # work that was under way at the last look ended just before
        if not grant.granted:
            await self._refuse(question, grant, abandoned)
        try:
            if grant.already_answered is None and await self._is_answered(question):
                raise RetryQuestionError  # noqa: TRY301 - the hold is given back first
            with span("assistant"):
                answer = await self._ask(question, abandoned)
            if answer is not None and answer.chargeable and await self._settle(question, hold, grant.account, answer):
                return QueryOutcome(answer, grant.account, charged=QUESTION_COST)
        except BaseException:
            with suppress(ShopAssistError):
                await self._ledger.void(hold.hold_id, hold.user_id)
            raise
        await self._ledger.void(hold.hold_id, hold.user_id)
        grant.account.available_credits += QUESTION_COST
        return QueryOutcome(answer or FAILED_ANSWER, grant.account, error=None if answer else ASSISTANT_FAILED)

    async def _refuse(self, question: Question, grant: Grant, abandoned: asyncio.Future[None]) -> NoReturn:
        """Say that no credit is left, but for work on the question in another process: that is waited for."""
        account = grant.account
        if not grant.is_in_progress:
            account = await self._credits.get_caller_account(question.user_id, question.is_guest, question.network)
        waited = grant.is_in_progress
        while await self._refuse_key_in_flight(question):
            if abandoned.done():
                break
            waited = True
            await asyncio.sleep(POLL_SECONDS)
        if waited or account.available_credits >= QUESTION_COST or await self._is_answered(question):
            raise RetryQuestionError
        raise build_exhausted_error(self._credits, account)

    async def _refuse_key_in_flight(self, question: Question) -> bool:
        """Whether the question is in flight under no key or another one. Raises when the question's key is."""
        holds = await self._ledger.list_open_holds(question.user_id, question.query_hash, question.idempotency_key)
        for hold in holds:
            if hold.idempotency_key is not None and hold.idempotency_key == question.idempotency_key:
                raise KeyInFlightError if hold.question_hash == question.query_hash else KeyReusedError
        return bool(holds)

    async def _is_answered(self, question: Question) -> bool:
        return await self._replayed(question) is not None or await self._cache.is_cached(question.query_hash)

    async def _ask(self, question: Question, abandoned: asyncio.Future[None]) -> Answer | None:
        return await ask_assistant(self._assistant, question.query, question.context, self._timeout_seconds, abandoned)

    async def _settle(self, question: Question, hold: HoldRequest, account: UserCredits, answer: Answer) -> bool:
        replay = None
        if question.idempotency_key is not None:
            replay = build_replay(
                question, build_response(question, QueryOutcome(answer, account, charged=QUESTION_COST), self._credits)
            )
        stored = self._cache.to_store(question.query_hash, answer)
        epoch = self._stale.epoch
        settled = await self._ledger.settle(
            Settlement(hold.hold_id, hold.user_id, DEDUCTION_DESCRIPTION, stored, replay)
        )
        if settled:
            self._stale.keep_new(stored, epoch)
        return settled
