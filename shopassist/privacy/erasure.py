"""Erase users step by step, resume unfinished erasures and repeat them after a restore."""

import time
from collections.abc import AsyncIterator, Mapping
from math import inf
from uuid import UUID

from shopassist.credits.models import Erasure
from shopassist.db.ports import UserHashFunction
from shopassist.db.row_batches import JobResult, run_in_batches
from shopassist.errors import NotFoundError
from shopassist.privacy.models import AskedBy, ErasureListEntry, ErasureReceipt, ErasureRequest
from shopassist.privacy.personal_data import PERSONAL_DATA_TABLES, OnErasure, PersonalDataTable
from shopassist.privacy.ports import ErasureCounters, ErasureRepository, PersonalDataReader
from shopassist.text import validate_user_id

PAGE_ROWS = 1000
MAX_WAIT_SECONDS = 5.0
"""How long a caller is kept waiting; what takes longer goes on by itself."""

NO_PERSONAL_DATA = "Nothing is held of this user."


class ErasureService:
    """Erases people, and takes up what was left half-way."""

    def __init__(
        self,
        erasures: ErasureRepository,
        personal_data: PersonalDataReader,
        hash_user_id: UserHashFunction,
        counters: ErasureCounters | None = None,
    ) -> None:
        """`hash_user_id` hashes user ids; what is finished is counted in `counters`."""
        self._counters = counters or ErasureCounters()
        self._erasures = erasures
        self._personal_data = personal_data
        self._hash_user_id = hash_user_id

    async def erase(
        self,
        user_id: str,
        is_guest: bool | None,
        asked_by: AskedBy = AskedBy.USER,
        patience_seconds: float = MAX_WAIT_SECONDS,
    ) -> ErasureReceipt:
        """Erase somebody, or go on doing so; the receipt of the last time when nothing is held any more.

        After `patience_seconds` the rest is left to `finish`. `is_guest` is None where only the account can tell.
        Raises `NotFoundError` when nothing was ever held, and `SessionRefusedError` for a guest who names a registered
        account.
        """
        request = ErasureRequest(validate_user_id(user_id), self._hash_user_id(user_id), is_guest, asked_by)
        erasure = await self._erasures.begin(request)
        if erasure is None:
            raise NotFoundError(NO_PERSONAL_DATA)
        give_up_at = time.monotonic() + patience_seconds
        while erasure.finished_at is None:
            erasure = await self._advance(erasure.id)
            if time.monotonic() > give_up_at:
                break
        return build_receipt(erasure)

    async def finish_pending(self, seconds: float = inf) -> JobResult:
        """Finish what is under way, whoever began it; how many erasures. After `seconds` the rest is left."""
        give_up_at = time.monotonic() + seconds
        finished = 0
        while unfinished := await self._erasures.list_unfinished():
            for erasure_id in unfinished:
                if not await self._finish(erasure_id, give_up_at):
                    return JobResult.incomplete(finished)
                finished += 1
        return JobResult(finished)

    async def delete_expired(self, seconds: float = inf) -> JobResult:
        """Forget balances whose period is over, and erasures that are past their lifetime; how many."""
        return await run_in_batches(self._erasures.delete_expired, seconds=seconds)

    async def iterate_list(self) -> AsyncIterator[ErasureListEntry]:
        """The list of erasures, the oldest first."""
        last: ErasureListEntry | None = None
        while page := await self._erasures.list_erasures(PAGE_ROWS, last):
            for one in page:
                yield one
            last = page[-1]

    async def repeat_listed(self, listed: Mapping[str, ErasureListEntry]) -> AsyncIterator[ErasureReceipt | None]:
        """Erase again whoever is on a list, by subject hash, and there from before: an older backup brought them back.

        Gives the receipt of each who was erased, and None for each page that was looked through. Who came back after
        the erasure stays.
        """
        for holding in PERSONAL_DATA_TABLES:
            if holding.created_column is not None:
                async for receipt in self._replay(holding, listed):
                    yield receipt

    async def _replay(
        self, holding: PersonalDataTable, listed: Mapping[str, ErasureListEntry]
    ) -> AsyncIterator[ErasureReceipt | None]:
        after = ""
        while page := await self._personal_data.list_owners(holding, PAGE_ROWS, after):
            for trace in page:
                found = listed.get(self._hash_user_id(trace.user_id))
                if found is not None and trace.since <= found.erased_at:
                    yield await self.erase(trace.user_id, trace.is_guest, AskedBy.REPLAY, float("inf"))
            yield None
            after = page[-1].user_id

    async def _finish(self, erasure_id: UUID, give_up_at: float) -> bool:
        """Whether there was time for all of it."""
        while (await self._advance(erasure_id)).finished_at is None:
            if time.monotonic() >= give_up_at:
                return False
        return True

    async def _advance(self, erasure_id: UUID) -> Erasure:
        erasure = await self._erasures.advance(erasure_id)
        if erasure.finished_at is not None:
            self._counters.count_erasure(erasure)
        return erasure


def build_receipt(erasure: Erasure) -> ErasureReceipt:
    """What whoever asked is given."""
    kept = {one.name for one in PERSONAL_DATA_TABLES if one.on_erasure in {OnErasure.PSEUDONYMISE, OnErasure.ANONYMISE}}
    counts: dict[str, int] = erasure.counts
    return ErasureReceipt(
        receipt_id=erasure.id,
        requested_at=erasure.requested_at,
        finished_at=erasure.finished_at,
        erased={name: count for name, count in counts.items() if name not in kept},
        pseudonymised={name: count for name, count in counts.items() if name in kept},
    )


async def repeat_erasures(service: ErasureService, listed: dict[str, ErasureListEntry]) -> int:
    """Finish what is under way, then erase again whoever is listed; how many were."""
    await service.finish_pending()
    count = 0
    async for receipt in service.repeat_listed(listed):
        count += receipt is not None
    return count
