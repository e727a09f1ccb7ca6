"""The ledger of both sides."""

from collections.abc import Awaitable
from uuid import UUID

from shopassist.db.ports import LedgerAudit
from shopassist.db.rollout.routing import Routing, never
from shopassist.models import UserCredits
from shopassist.models.audit import AuditPage
from shopassist.models.ledger import Adjustment, Grant, HoldRequest, OpenHold, Settlement

IN_POSTGRES = "\0"
"""Begins the key of an audit's page once memory is through; no user id has it."""


class RolloutLedger:
    """Implements `CreditLedger`: each call goes to where the account is."""

    def __init__(self, routing: Routing) -> None:
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
        return await both(here.void_expired(limit), there.void_expired(limit))

    async def reset_due(self, limit: int = 1000) -> int:
        here, there = self._residence.memory.ledger, self._residence.postgres.ledger
        return await both(here.reset_due(limit), there.reset_due(limit))


class RolloutAudit:
    """Implements `LedgerAudit`: first memory, then PostgreSQL."""

    def __init__(self, memory: LedgerAudit, postgres: LedgerAudit) -> None:
        """The audits of both sides."""
        self._memory = memory
        self._postgres = postgres

    async def page(self, after_user_id: str = "", limit: int = 5000) -> AuditPage:
        if not after_user_id.startswith(IN_POSTGRES):
            page = await self._memory.page(after_user_id, limit)
            return AuditPage(page.accounts, page.drifts, page.last_user_id or IN_POSTGRES)
        page = await self._postgres.page(after_user_id.removeprefix(IN_POSTGRES), limit)
        last = page.last_user_id
        return AuditPage(page.accounts, page.drifts, None if last is None else IN_POSTGRES + last)


async def both(memory: Awaitable[int], postgres: Awaitable[int]) -> int:
    """What was done on both sides. Raises what PostgreSQL raises once memory is done."""
    return await memory + await postgres
