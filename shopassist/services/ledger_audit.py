"""Verification: every balance recomputed from the ledger."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import structlog

from shopassist.db.ports import LedgerAudit
from shopassist.models.audit import AuditPage, AuditReport

logger = structlog.get_logger(__name__)

PAGE_ACCOUNTS = 5000


class LedgerAuditService:
    """Verifies the ledger and remembers the last outcome, for health and metrics."""

    def __init__(self, audit: LedgerAudit) -> None:
        """`last` is None until this process has verified once."""
        self._audit = audit
        self.last: AuditReport | None = None

    async def pages(self) -> AsyncIterator[AuditPage]:
        """Every account once, a page at a time; each page is true at an instant of its own."""
        accounts, drifting = 0, 0
        last_user_id: str | None = ""
        while last_user_id is not None:
            page = await self._audit.page(last_user_id, PAGE_ACCOUNTS)
            accounts += page.accounts
            drifting += len({drift.user_id for drift in page.drifts})
            last_user_id = page.last_user_id
            yield page
        self.last = AuditReport(accounts, drifting, datetime.now(UTC))

    async def verify(self) -> AuditReport | None:
        """Verify all; a drift is logged as an error, by number only."""
        async for _ in self.pages():
            pass
        if self.last is not None and self.last.drifting_accounts:
            logger.error("ledger_drift", count=self.last.drifting_accounts)
        return self.last

    def status(self) -> dict[str, str | int]:
        """The last outcome in this process."""
        if self.last is None:
            return {"verified": "not run here"}
        return {
            "verified": self.last.finished_at.isoformat(),
            "accounts": self.last.accounts,
            "drifting_accounts": self.last.drifting_accounts,
        }
