"""Housekeeping: what scheduled work does, each in batches and for the length of a turn."""

import time
from dataclasses import dataclass

from shopassist.db.ports import CreditLedger, GuestNetworks, Replays
from shopassist.db.upkeep import MaintenanceRuns, Vacuum
from shopassist.models.maintenance import Work
from shopassist.services.batches import TURN_SECONDS, in_batches
from shopassist.services.credits import CreditService
from shopassist.services.erasure import ErasureService
from shopassist.services.ledger_audit import LedgerAuditService
from shopassist.services.query_cache import QueryCacheService


@dataclass(slots=True)
class Housekeeping:
    """One method for each job. All bear being done by two at once, and being stopped half-way."""

    ledger: CreditLedger
    replays: Replays
    guest_networks: GuestNetworks
    runs: MaintenanceRuns
    tables: Vacuum
    credits: CreditService
    cache: QueryCacheService
    erasures: ErasureService
    audit: LedgerAuditService
    _folded_to: int = 0

    async def void_expired_holds(self) -> Work:
        """Give back what is held for questions that nobody works on any more."""
        return await in_batches(self.ledger.void_expired)

    async def reset_due_credits(self) -> Work:
        """Refill accounts whose period is over."""
        return await in_batches(self.ledger.reset_due)

    async def forget_idempotent_answers(self) -> Work:
        """Remove answers kept by key that are past their time."""
        return await in_batches(self.replays.forget_expired)

    async def forget_guest_networks(self) -> Work:
        """Remove counts of new guests of days that are over."""
        return await in_batches(self.guest_networks.forget_old)

    async def clear_expired_cache(self) -> Work:
        """Remove cached answers past their validity."""
        return await in_batches(self.cache.clear_expired_batch)

    async def fold_old_transactions(self) -> Work:
        """Fold what is past its retention, from where the last turn in this process ended."""
        give_up_at = time.monotonic() + TURN_SECONDS
        folded = 0
        while True:
            fold = await self.credits.fold_batch(self._folded_to)
            folded += fold.folded
            self._folded_to = fold.last_id or 0
            if fold.last_id is None:
                return Work(folded)
            if time.monotonic() >= give_up_at:
                return Work.cut_short(folded)

    async def finish_erasures(self) -> Work:
        """Finish erasures that are under way."""
        return await self.erasures.finish(TURN_SECONDS)

    async def forget_erased(self) -> Work:
        """Forget what is needed of the erased for a while only."""
        return await self.erasures.forget(TURN_SECONDS)

    async def verify_ledger(self) -> Work:
        """Recompute balances."""
        return await self.audit.verify_for(TURN_SECONDS)

    async def forget_runs(self) -> Work:
        """Remove records of runs of long ago."""
        return await in_batches(self.runs.forget)

    async def vacuum(self) -> Work:
        """Vacuum the tables whose figures call for it."""
        return await self.tables.vacuum()
