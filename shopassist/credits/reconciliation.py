"""Recomputes every balance from the ledger and reports drift."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import structlog

from shopassist.credits.models import ReconciliationPage, ReconciliationReport
from shopassist.credits.ports import LedgerReconciliation
from shopassist.db.row_batches import JobResult

logger = structlog.get_logger(__name__)

ACCOUNTS_PER_PAGE = 5000


class LedgerReconciliationService:
    """Verifies the ledger and remembers the last outcome, for health and metrics."""

    def __init__(self, audit: LedgerReconciliation) -> None:
        """`last` is None until this process has verified once."""
        self._audit = audit
        self._walk: AsyncIterator[ReconciliationPage] | None = None
        self.last: ReconciliationReport | None = None

    async def pages(self) -> AsyncIterator[ReconciliationPage]:
        """Every account once, a page at a time; each page is true at an instant of its own."""
        accounts, drifting = 0, 0
        last_user_id: str | None = ""
        while last_user_id is not None:
            page = await self._audit.reconcile_page(last_user_id, ACCOUNTS_PER_PAGE)
            accounts += page.accounts
            drifting += len({drift.user_id for drift in page.drifts})
            last_user_id = page.last_user_id
            yield page
        self.last = ReconciliationReport(accounts, drifting, datetime.now(UTC))

    async def verify(self) -> ReconciliationReport | None:
        """Verify all; a drift is logged as an error, by number only."""
        async for _ in self.pages():
            pass
        self._tell()
        return self.last

    async def verify_within(self, seconds: float) -> JobResult:
        """Verify for so long, from where the last turn in this process ended; how many accounts."""
        give_up_at = time.monotonic() + seconds
        # Whatever happens to it on the way, a walk that broke off begins anew.
        walk, self._walk = self._walk or self.pages(), None
        accounts = 0
        async for page in walk:
            accounts += page.accounts
            if page.last_user_id is not None and time.monotonic() >= give_up_at:
                self._walk = walk
                return JobResult.incomplete(accounts)
        drifting = self._tell()
        return JobResult(accounts, note=f"{drifting} accounts drift: `shopassist credits verify`" if drifting else None)

    def _tell(self) -> int:
        """How many accounts drift, which is logged."""
        drifting = self.last.drifting_accounts if self.last is not None else 0
        if drifting:
            logger.error("ledger_drift", count=drifting)
        return drifting

    def status(self) -> dict[str, str | int]:
        """The last outcome in this process."""
        if self.last is None:
            return {"verified": "not run here"}
        return {
            "verified": self.last.finished_at.isoformat(),
            "accounts": self.last.accounts,
            "drifting_accounts": self.last.drifting_accounts,
        }
