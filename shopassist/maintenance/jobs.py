"""The scheduled jobs, each in batches within a time limit."""

import time
from dataclasses import dataclass

from shopassist.cache.service import QueryCacheService
from shopassist.credits.ports import CreditLedger, GuestNetworks, IdempotencyStore
from shopassist.credits.reconciliation import LedgerReconciliationService
from shopassist.credits.service import CreditService
from shopassist.db.row_batches import JOB_TIME_LIMIT_SECONDS, JobResult, run_in_batches
from shopassist.maintenance.ports import MaintenanceRuns, Vacuum
from shopassist.privacy.service import ErasureService


@dataclass(slots=True)
class MaintenanceJobs:
    """One method for each job. All bear being done by two at once, and being stopped half-way."""

    ledger: CreditLedger
    replays: IdempotencyStore
    guest_networks: GuestNetworks
    runs: MaintenanceRuns
    tables: Vacuum
    credits: CreditService
    cache: QueryCacheService
    erasures: ErasureService
    audit: LedgerReconciliationService
    _folded_to: int = 0

    async def void_expired_holds(self) -> JobResult:
        """Give back what is held for questions that nobody works on any more."""
        return await run_in_batches(self.ledger.void_expired)

    async def reset_due_credits(self) -> JobResult:
        """Refill accounts whose period is over."""
        return await run_in_batches(self.ledger.reset_due_accounts)

    async def forget_idempotent_answers(self) -> JobResult:
        """Remove answers kept by key that are past their time."""
        return await run_in_batches(self.replays.delete_expired)

    async def forget_guest_networks(self) -> JobResult:
        """Remove counts of new guests of days that are over."""
        return await run_in_batches(self.guest_networks.delete_old)

    async def clear_expired_cache(self) -> JobResult:
        """Remove cached answers past their validity."""
        return await run_in_batches(self.cache.clear_expired_batch)

    async def fold_old_transactions(self) -> JobResult:
        """Fold what is past its retention, from where the last turn in this process ended."""
        give_up_at = time.monotonic() + JOB_TIME_LIMIT_SECONDS
        folded = 0
        while True:
            fold = await self.credits.compact_batch(self._folded_to)
            folded += fold.compacted
            self._folded_to = fold.last_id or 0
            if fold.last_id is None:
                return JobResult(folded)
            if time.monotonic() >= give_up_at:
                return JobResult.incomplete(folded)

    async def finish_erasures(self) -> JobResult:
        """Finish erasures that are under way."""
        return await self.erasures.finish_pending(JOB_TIME_LIMIT_SECONDS)

    async def forget_erased(self) -> JobResult:
        """Forget what is needed of the erased for a while only."""
        return await self.erasures.delete_expired(JOB_TIME_LIMIT_SECONDS)

    async def verify_ledger(self) -> JobResult:
        """Recompute balances."""
        return await self.audit.verify_within(JOB_TIME_LIMIT_SECONDS)

    async def forget_runs(self) -> JobResult:
        """Remove records of runs of long ago."""
        return await run_in_batches(self.runs.delete_old)

    async def vacuum(self) -> JobResult:
        """Vacuum the tables whose figures call for it."""
        return await self.tables.vacuum()
