"""Accounts opened in PostgreSQL: never while their owner is erased, and never fuller than they were before."""

import time
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres import erasure_statements, opening_statements
from shopassist.db.postgres.ledger_rows import Take
from shopassist.db.privacy import SubjectHash
from shopassist.errors import GuestLimitError, ShopAssistError
from shopassist.models.erasure import ErasedBalance, Opening, Past, opening
from shopassist.models.ledger import CreditPolicy


class Openings:
    """Opens accounts for requests that found none."""

    def __init__(self, manager: DatabaseManager, policy: CreditPolicy, clock: Clock, subjects: SubjectHash) -> None:
        """`policy` says how many credits a new account has."""
        self._manager = manager
        self._policy = policy
        self._clock = clock
        self._subjects = subjects

    async def open(self, requests: Sequence[Take]) -> dict[str, ShopAssistError]:
        """Open the accounts; why not, by user id, where that is refused. Raises domain errors."""

        async def once() -> dict[str, ShopAssistError]:
            async with self._manager.session() as session:
                return await self._open(session, requests)

        return await self._manager.resilience.run(once, repeatable=True)

    async def _open(self, session: AsyncSession, requests: Sequence[Take]) -> dict[str, ShopAssistError]:
        hashes = {request.user_id: self._subjects(request.user_id) for request in requests}
        await session.execute(erasure_statements.SHARE_SUBJECTS, {"subjects": list(hashes.values())})
        pasts = await self._pasts(session, list(hashes.values()))
        openings: dict[str, tuple[Take, Opening]] = {}
        refused: dict[str, ShopAssistError] = {}
        for request in requests:
            asked_since = timedelta(seconds=time.monotonic() - request.began)
            try:
                begins = opening(request.is_guest, pasts[hashes[request.user_id]], self._policy, asked_since)
            except ShopAssistError as error:
                refused[request.user_id] = error
            else:
                openings.setdefault(request.user_id, (request, begins))
        opened = await self._opened(session, openings) if openings else set()
        # Who asked twice may have been refused once; who is not there after all was one guest too many.
        refused |= {user_id: GuestLimitError() for user_id in openings.keys() - opened}
        return {user_id: error for user_id, error in refused.items() if user_id not in opened}

    async def _opened(self, session: AsyncSession, openings: dict[str, tuple[Take, Opening]]) -> set[str]:
        """Open what is not there yet and may be; the user ids that have an account then."""
        takes, beginnings = zip(*openings.values(), strict=True)
        parameters = {
            "instant": self._clock.instant(),
            "user_ids": list(openings),
            "guests": [take.is_guest for take in takes],
            "credits": [begins.available_credits for begins in beginnings],
            "most": [begins.max_credits for begins in beginnings],
            "resets": [begins.last_reset for begins in beginnings],
            "networks": [take.network if take.is_guest else None for take in takes],
            "guests_per_network": self._policy.guest_accounts_per_network,
        }
        for spare in (await session.execute(opening_statements.OPEN, parameters)).mappings().all():
            await session.execute(opening_statements.GIVE_BACK, dict(spare))
        there = await session.execute(opening_statements.THERE, {"user_ids": list(openings)})
        return set(there.scalars())

    async def _pasts(self, session: AsyncSession, hashes: list[str]) -> dict[str, Past]:
        parameters = {"subjects": hashes, "instant": self._clock.instant()}
        rows = (await session.execute(erasure_statements.PAST, parameters)).all()
        return {
            row.subject_hash: Past(
                row.instant,
                row.is_erasing,
                row.erased_at,
                None
                if row.forget_at is None
                else ErasedBalance(
                    subject_hash=row.subject_hash,
                    is_guest=row.is_guest,
                    available_credits=row.available_credits,
                    last_reset_timestamp=row.last_reset_timestamp,
                    forget_at=row.forget_at,
                ),
            )
            for row in rows
        }
