"""What is held of people, on both sides."""

from uuid import UUID

from shopassist.db.privacy import Erasures, HeldPage, Key, Trace
from shopassist.db.rollout.dial import Side
from shopassist.db.rollout.ledger import both
from shopassist.db.rollout.routing import Routing, never
from shopassist.models import AdminAct
from shopassist.models.consent_history import Agreement, Subject
from shopassist.models.erasure import Erasure, ErasureRequest, Listed
from shopassist.models.holdings import Holding
from shopassist.models.ledger import Replay
from shopassist.models.notice import PublishedNotice


class RolloutReplays:
    """Implements `Replays`."""

    def __init__(self, routing: Routing) -> None:
        """`routing` knows where people are."""
        self._routing = routing

    async def find(self, user_id: str, idempotency_key: str) -> Replay | None:
        return await self._routing.ask(
            (user_id,), "find_replay", lambda place: place.replays.find(user_id, idempotency_key), changes=never
        )

    async def remember(self, replay: Replay) -> None:
        return await self._routing.ask((replay.user_id,), "remember", lambda place: place.replays.remember(replay))

    async def forget_expired(self, limit: int = 1000) -> int:
        here, there = self._routing.residence.memory.replays, self._routing.residence.postgres.replays
        return await both(here.forget_expired(limit), there.forget_expired(limit))


class RolloutConsentLookup:
    """Implements `ConsentLookup`."""

    def __init__(self, routing: Routing) -> None:
        """`routing` knows where people are."""
        self._routing = routing

    async def published(self) -> list[PublishedNotice]:
        """As memory was last told (`Rollout`), which costs nothing and is there even when PostgreSQL is not."""
        return await self._routing.residence.memory.consent_lookup.published()

    async def agreement(self, subject: Subject, purpose: str) -> Agreement | None:
        return await self._routing.ask(
            (subject.user_id,),
            "agreement",
            lambda place: place.consent_lookup.agreement(subject, purpose),
            changes=never,
        )


class RolloutHoldings:
    """Implements `Holdings`."""

    def __init__(self, routing: Routing) -> None:
        """`routing` knows where people are."""
        self._routing = routing

    async def page(
        self, holding: Holding, user_id: str, is_guest: bool, limit: int, after: Key | None = None
    ) -> HeldPage:
        if holding.table is not AdminAct and len(holding.owner) == 1:
            place = self._routing.residence.place_of(user_id)
            return await place.holdings.page(holding, user_id, is_guest, limit, after)
        # What is about somebody under the name of somebody else is in PostgreSQL, or is brought there.
        residence = self._routing.residence
        await residence.send_acts()
        return await self._routing.ask(
            (*await residence.keepers(user_id), user_id),
            "holdings",
            lambda _: residence.postgres.holdings.page(holding, user_id, is_guest, limit, after),
            changes=never,
            wanted=Side.POSTGRES,
            is_compared=False,
        )

    async def traces(self, holding: Holding, limit: int, after_user_id: str = "") -> list[Trace]:
        return await self._routing.residence.postgres.holdings.traces(holding, limit, after_user_id)


class RolloutErasures:
    """Implements `Erasures`, in PostgreSQL alone: rows that somebody left behind there must go as well."""

    def __init__(self, routing: Routing, postgres: Erasures) -> None:
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

    async def unfinished(self, limit: int = 100) -> list[UUID]:
        return await self._postgres.unfinished(limit)

    async def listed(self, limit: int = 1000, after: Listed | None = None) -> list[Listed]:
        return await self._postgres.listed(limit, after)

    async def forget(self, limit: int = 1000) -> int:
        return await self._postgres.forget(limit)
