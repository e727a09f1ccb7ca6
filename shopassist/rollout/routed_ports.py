"""Ports that route each call by its user: ledger, idempotency, consent, personal data, erasures."""

from collections.abc import Awaitable
from uuid import UUID

from shopassist.audit.models import AdminAct
from shopassist.consent.models import ConsentSubject, LatestDecision, PublishedNotice
from shopassist.credits.models import Erasure, ReconciliationPage, UserCredits
from shopassist.credits.ports import (
    Adjustment,
    Grant,
    HoldRequest,
    IdempotencyRecord,
    LedgerReconciliation,
    OpenHold,
    Settlement,
)
from shopassist.privacy.models import ErasureListEntry, ErasureRequest
from shopassist.privacy.personal_data import PersonalDataTable
from shopassist.privacy.ports import DataOwner, ErasureRepository, PersonalDataPage, PrimaryKey
from shopassist.rollout.assignment import Side
from shopassist.rollout.router import Router, never

IN_POSTGRES = "\0"
"""Begins the key of an audit's page once memory is through; no user id has it."""


class RolloutCreditLedger:
    """Implements `CreditLedger`: each call goes to where the account is."""

    def __init__(self, routing: Router) -> None:
        """`routing` knows where that is."""
        self._routing = routing
        self._residence = routing.residence

    async def account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        return await self._routing.ask(
            (user_id,),
            "account",
            lambda place: place.ledger.account(user_id, is_guest, network),
            changes=lambda account: not self._residence.is_mirrored(account),
        )

    async def register(self, user_id: str) -> UserCredits:
        return await self._routing.ask((user_id,), "register", lambda place: place.ledger.register(user_id))

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        return await self._routing.ask(
            (user_id,), "deduct", lambda place: place.ledger.deduct(user_id, is_guest, amount, description)
        )

    async def hold(self, request: HoldRequest) -> Grant:
        return await self._routing.ask((request.user_id,), "hold", lambda place: place.ledger.hold(request))

    async def open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        return await self._routing.ask(
            (user_id,),
            "open_holds",
            lambda place: place.ledger.open_holds(user_id, question_hash, idempotency_key),
            changes=never,
        )

    async def settle(self, settlement: Settlement) -> bool:
        settled = await self._routing.ask(
            (settlement.user_id,), "settle", lambda place: place.ledger.settle(settlement)
        )
        # Whoever paid for an answer gets it again for nothing, wherever they are by then.
        if settled and settlement.answer is not None:
            await self._residence.in_memory.keep_answer(settlement.answer)
        return settled

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        return await self._routing.ask((user_id,), "void", lambda place: place.ledger.void(hold_id, user_id))

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        # What was answered under the administrator's key is stored with the adjustment, and found where they are.
        return await self._routing.ask(
            (adjustment.actor, adjustment.user_id),
            "adjust",
            lambda place: place.ledger.adjust(adjustment),
            is_compared=False,  # once is enough in the audit
        )

    async def reset(self, user_id: str) -> None:
        return await self._routing.ask((user_id,), "reset", lambda place: place.ledger.reset(user_id))

    # What time brings about needs no mirror: it comes about there as well, once somebody is back.

    async def void_expired(self, limit: int = 1000) -> int:
        here, there = self._residence.memory.ledger, self._residence.postgres.ledger
        return await sum_both(here.void_expired(limit), there.void_expired(limit))

    async def reset_due(self, limit: int = 1000) -> int:
        here, there = self._residence.memory.ledger, self._residence.postgres.ledger
        return await sum_both(here.reset_due(limit), there.reset_due(limit))


class RolloutReconciliation:
    """Implements `LedgerReconciliation`: first memory, then PostgreSQL."""

    def __init__(self, memory: LedgerReconciliation, postgres: LedgerReconciliation) -> None:
        """The audits of both sides."""
        self._memory = memory
        self._postgres = postgres

    async def page(self, after_user_id: str = "", limit: int = 5000) -> ReconciliationPage:
        if not after_user_id.startswith(IN_POSTGRES):
            page = await self._memory.page(after_user_id, limit)
            return ReconciliationPage(page.accounts, page.drifts, page.last_user_id or IN_POSTGRES)
        page = await self._postgres.page(after_user_id.removeprefix(IN_POSTGRES), limit)
        last = page.last_user_id
        return ReconciliationPage(page.accounts, page.drifts, None if last is None else IN_POSTGRES + last)


async def sum_both(memory: Awaitable[int], postgres: Awaitable[int]) -> int:
    """What was done on both sides. Raises what PostgreSQL raises once memory is done."""
    return await memory + await postgres


class RolloutReplays:
    """Implements `IdempotencyStore`."""

    def __init__(self, routing: Router) -> None:
        """`routing` knows where people are."""
        self._routing = routing

    async def find(self, user_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        return await self._routing.ask(
            (user_id,), "find_replay", lambda place: place.replays.find(user_id, idempotency_key), changes=never
        )

    async def remember(self, replay: IdempotencyRecord) -> None:
        return await self._routing.ask((replay.user_id,), "remember", lambda place: place.replays.remember(replay))

    async def forget_expired(self, limit: int = 1000) -> int:
        here, there = self._routing.residence.memory.replays, self._routing.residence.postgres.replays
        return await sum_both(here.forget_expired(limit), there.forget_expired(limit))


class RolloutConsentLookup:
    """Implements `ConsentLookup`."""

    def __init__(self, routing: Router) -> None:
        """`routing` knows where people are."""
        self._routing = routing

    async def list_published(self) -> list[PublishedNotice]:
        """As memory was last told (`Rollout`), which costs nothing and is there even when PostgreSQL is not."""
        return await self._routing.residence.memory.consent_lookup.list_published()

    async def get_latest_decision(self, subject: ConsentSubject, purpose: str) -> LatestDecision | None:
        return await self._routing.ask(
            (subject.user_id,),
            "agreement",
            lambda place: place.consent_lookup.get_latest_decision(subject, purpose),
            changes=never,
        )


class RolloutHoldings:
    """Implements `PersonalDataReader`."""

    def __init__(self, routing: Router) -> None:
        """`routing` knows where people are."""
        self._routing = routing

    async def read_page(
        self, holding: PersonalDataTable, user_id: str, is_guest: bool, limit: int, after: PrimaryKey | None = None
    ) -> PersonalDataPage:
        if holding.model is not AdminAct and len(holding.owner_path) == 1:
            place = self._routing.residence.place_of(user_id)
            return await place.personal_data.read_page(holding, user_id, is_guest, limit, after)
        # What is about somebody under the name of somebody else is in PostgreSQL, or is brought there.
        residence = self._routing.residence
        await residence.send_acts()
        return await self._routing.ask(
            (*await residence.keepers(user_id), user_id),
            "holdings",
            lambda _: residence.postgres.personal_data.read_page(holding, user_id, is_guest, limit, after),
            changes=never,
            wanted=Side.POSTGRES,
            is_compared=False,
        )

    async def list_owners(self, holding: PersonalDataTable, limit: int, after_user_id: str = "") -> list[DataOwner]:
        return await self._routing.residence.postgres.personal_data.list_owners(holding, limit, after_user_id)


class RolloutErasures:
    """Implements `ErasureRepository`, in PostgreSQL alone: rows that somebody left behind there must go as well."""

    def __init__(self, routing: Router, postgres: ErasureRepository) -> None:
        """`postgres` erases; whoever is elsewhere is moved there first, and stays until it is done."""
        self._routing = routing
        self._postgres = postgres
        self._under_way: dict[UUID, tuple[str, ...]] = {}

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        residence = self._routing.residence
        await residence.send_acts()
        async with self._routing.locks.held(request.user_id):  # what was under way is known then
            user_ids = (*await residence.keepers(request.user_id), request.user_id)

        async def begun(_: object) -> Erasure | None:
            erasure = await self._postgres.begin(request)
            if erasure is not None and erasure.finished_at is None and erasure.id not in self._under_way:
                self._under_way[erasure.id] = user_ids
                residence.pinned.update(user_ids)
            await residence.know_erased(request.subject_hash)
            return erasure

        return await self._routing.ask(user_ids, "erase", begun, wanted=Side.POSTGRES, is_compared=False)

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        erasure = await self._postgres.advance(erasure_id, limit)
        if erasure.finished_at is not None:
            await self._routing.residence.know_erased(erasure.subject_hash)
            await self._finished(self._under_way.pop(erasure_id, ()))
        return erasure

    async def _finished(self, user_ids: tuple[str, ...]) -> None:
        """Let memory have nothing that was erased; the last of them was."""
        residence = self._routing.residence
        async with self._routing.locks.held(*user_ids):
            residence.pinned.subtract(user_ids)
            for user_id in user_ids:
                await residence.mirror_again(user_id)
            for user_id in user_ids[-1:]:
                await residence.disown(user_id)

    async def list_unfinished(self, limit: int = 100) -> list[UUID]:
        return await self._postgres.list_unfinished(limit)

    async def list_erasures(self, limit: int = 1000, after: ErasureListEntry | None = None) -> list[ErasureListEntry]:
        return await self._postgres.list_erasures(limit, after)

    async def delete_expired(self, limit: int = 1000) -> int:
        return await self._postgres.delete_expired(limit)
