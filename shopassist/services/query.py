"""A question: look in the cache; hold a credit; ask the assistant; settle and store, or void and say so."""

import asyncio
from uuid import uuid4

import structlog

from shopassist.assistant.port import Assistant
from shopassist.db.ports import CreditLedger, Replays
from shopassist.errors import KeyInFlightError, KeyReusedError
from shopassist.models import UserCredits
from shopassist.models.ledger import HoldRequest, Settlement
from shopassist.models.query import Answer, QueryRequest, QueryResponse
from shopassist.services.conversation import canonical, earlier
from shopassist.services.credits import CreditService
from shopassist.services.flights import Flights, Gone
from shopassist.services.query_cache import QueryCacheService
from shopassist.services.reply import Outcome, Question, Reply, exhausted, replay_of, response_of

logger = structlog.get_logger(__name__)

COST = 1
"""Credits that one message costs."""

LOOK_SECONDS = 0.05
"""How often the outcome of work in another process is looked for."""

FAILED = "The assistant could not answer this time. Nothing was charged; please try again."
DESCRIPTION = "Credit deducted for message"


class QueryService:
    """Answers shoppers' questions and charges for those it could answer."""

    def __init__(
        self,
        cache: QueryCacheService,
        credits_: CreditService,
        ledger: CreditLedger,
        replays: Replays,
        flights: Flights[Outcome],
        assistant: Assistant,
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds` bounds the assistant's work on one question; `flights` is shared by the process."""
        self._cache = cache
        self._credits = credits_
        self._ledger = ledger
        self._replays = replays
        self._flights = flights
        self._assistant = assistant
        self._timeout_seconds = timeout_seconds

    async def answer(
        self,
        user_id: str,
        is_guest: bool,
        request: QueryRequest,
        idempotency_key: str | None = None,
        gone: Gone | None = None,
    ) -> Reply:
        """The answer to `request`; work that only callers wait for who are `gone` ends without a charge.

        Raises `CreditsExhaustedError` when it is not cached and no credit is left, `SessionRefusedError` when a guest
        names a registered account, `KeyReusedError` and `KeyInFlightError` as their names say.
        """
        context = earlier(request)
        query_hash = self._cache.generate_query_hash(request.query, canonical(context))
        question = Question(user_id, is_guest, request.query, context, query_hash, idempotency_key)
        replayed = await self._replayed(question)
        if replayed is not None:
            return Reply(replayed, replayed=True)
        stored = await self._cache.get_cached_result(query_hash)
        if stored is not None:
            account = await self._credits.own_account(user_id, is_guest)
            outcome = Outcome(Answer.model_validate(stored), account, cached=True)
            return Reply(await self._remembered(question, outcome))
        return Reply(await self._worked_out(question, gone))

    async def _replayed(self, question: Question) -> QueryResponse | None:
        if question.idempotency_key is None:
            return None
        replay = await self._replays.find(question.user_id, question.idempotency_key)
        if replay is None:
            return None
        if replay.request_hash != question.query_hash:
            raise KeyReusedError
        return QueryResponse.model_validate(replay.response)

    async def _remembered(self, question: Question, outcome: Outcome) -> QueryResponse:
        """The response, kept under the question's key where that was not done by a settlement."""
        response = response_of(question, outcome, self._credits)
        if question.idempotency_key is not None and outcome.answer.chargeable:
            await self._replays.remember(replay_of(question, response))
        return response

    async def _worked_out(self, question: Question, gone: Gone | None) -> QueryResponse:
        """The outcome of new work, or of work about the same question by the same caller that is under way."""
        about = (question.user_id, question.is_guest, question.query_hash)
        flight = self._flights.get(about)
        if flight is None:
            flight = self._flights.begin(about, self._work(question), question.idempotency_key)
            return response_of(question, await self._flights.wait(flight, gone), self._credits)
        if question.idempotency_key is not None and flight.idempotency_key == question.idempotency_key:
            raise KeyInFlightError
        joined = await self._flights.wait(flight, gone)
        return await self._remembered(question, Outcome(joined.answer, joined.account, error=joined.error))

    async def _work(self, question: Question) -> Outcome:
        hold = HoldRequest(
            uuid4(), question.user_id, question.is_guest, COST, question.query_hash, question.idempotency_key
        )
        account = await self._hold(hold)
        if account is None:
            return await self._elsewhere(question)
        answer = await self._ask(question, hold)
        if answer is not None and answer.chargeable:
            return await self._settle(question, hold, account, answer)
        if await self._ledger.void(hold.hold_id, hold.user_id):
            account.available_credits += COST
        if answer is None:
            return Outcome(Answer(recommendations_summary=FAILED, degraded=True), account, error=FAILED)
        return Outcome(answer, account)

    async def _hold(self, hold: HoldRequest) -> UserCredits | None:
        """The account with a credit set aside; None when the question is in flight in another process."""
        holding = asyncio.ensure_future(self._ledger.hold(hold))
        try:
            grant = await asyncio.shield(holding)
        except asyncio.CancelledError:
            if (await holding).granted:
                await self._ledger.void(hold.hold_id, hold.user_id)
            raise
        if grant.granted:
            return grant.account
        if grant.in_flight:
            return None
        account = await self._credits.own_account(hold.user_id, hold.is_guest)
        if account.available_credits >= COST:
            grant = await self._ledger.hold(hold)
        if not grant.granted:
            raise exhausted(self._credits, account)
        return grant.account

    async def _ask(self, question: Question, hold: HoldRequest) -> Answer | None:
        """The assistant's answer, or None when it failed or took too long; nobody waiting gives the credit back."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer: Answer = await self._assistant.answer(question.query, question.context)
                return answer
        except asyncio.CancelledError:
            await asyncio.shield(self._ledger.void(hold.hold_id, hold.user_id))
            raise
        except Exception as failure:  # noqa: BLE001 - whatever failed, the credit goes back
            logger.warning("assistant_failed", error=type(failure).__name__)
            return None

    async def _settle(self, question: Question, hold: HoldRequest, account: UserCredits, answer: Answer) -> Outcome:
        outcome = Outcome(answer, account, charged=COST)
        replay = None
        if question.idempotency_key is not None:
            replay = replay_of(question, response_of(question, outcome, self._credits))
        stored = self._cache.to_store(question.query_hash, answer.model_dump(mode="json"))
        settlement = Settlement(hold.hold_id, hold.user_id, DESCRIPTION, stored, replay)
        return outcome if await self._ledger.settle(settlement) else Outcome(answer, account)

    async def _elsewhere(self, question: Question) -> Outcome:
        """The outcome of the same question in another process; if that came to nothing, of work of our own."""
        while holds := await self._ledger.open_holds(question.user_id, question.query_hash, question.idempotency_key):
            if question.idempotency_key in {hold.idempotency_key for hold in holds} - {None}:
                same = any(hold.question_hash == question.query_hash for hold in holds)
                raise KeyInFlightError if same else KeyReusedError
            await asyncio.sleep(LOOK_SECONDS)
        stored = await self._cache.get_cached_result(question.query_hash)
        if stored is None:
            return await self._work(question)
        account = await self._credits.own_account(question.user_id, question.is_guest)
        outcome = Outcome(Answer.model_validate(stored), account)
        await self._remembered(question, outcome)
        return outcome
