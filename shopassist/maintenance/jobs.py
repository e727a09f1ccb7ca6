"""The list of scheduled jobs."""

from datetime import timedelta
from functools import partial

from shopassist.cache.service import QueryCacheService
from shopassist.credits.ports import CreditLedger, IdempotencyStore
from shopassist.credits.service import LedgerCompaction, LedgerReconciliationService
from shopassist.db.ports import JOB_TIME_LIMIT_SECONDS, run_in_batches
from shopassist.maintenance.models import MaintenanceRuns, Vacuum
from shopassist.maintenance.scheduler import Job
from shopassist.privacy.service import ErasureService


def build_jobs(
    ledger: CreditLedger,
    replays: IdempotencyStore,
    runs: MaintenanceRuns,
    vacuum: Vacuum,
    cache: QueryCacheService,
    erasures: ErasureService,
    compaction: LedgerCompaction,
    reconciliation: LedgerReconciliationService,
) -> list[Job]:
    """Return all jobs in the order in which `shopassist maintenance status` lists them.

    Two processes may run the same job at once, and each job may be stopped at any point.
    """
    seconds, minutes, hours, days = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
    return [
        Job("void_expired_holds", 5 * seconds, partial(run_in_batches, ledger.void_expired)),
        Job("finish_erasures", 10 * seconds, partial(erasures.finish_pending, JOB_TIME_LIMIT_SECONDS)),
        Job("reset_due_credits", minutes, partial(run_in_batches, ledger.reset_due_accounts)),
        Job("forget_idempotent_answers", 5 * minutes, partial(run_in_batches, replays.delete_expired)),
        Job("clear_expired_cache", 5 * minutes, partial(run_in_batches, cache.clear_expired_batch)),
        Job("forget_guest_networks", hours, partial(run_in_batches, ledger.delete_old_guest_counts)),
        Job("forget_erased", hours, partial(erasures.delete_expired, JOB_TIME_LIMIT_SECONDS)),
        Job("forget_runs", hours, partial(run_in_batches, runs.delete_old)),
        Job("vacuum", hours, vacuum.vacuum),
        Job("fold_old_transactions", days, partial(compaction.compact_within, JOB_TIME_LIMIT_SECONDS)),
        Job("verify_ledger", days, partial(reconciliation.verify_within, JOB_TIME_LIMIT_SECONDS)),
    ]
