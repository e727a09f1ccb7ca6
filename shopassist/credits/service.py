"""Services of credits: balances, adjustments, reconciliation and compaction of the ledger."""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any
from uuid import uuid4

import structlog

from shopassist.credits.models import (
    MAX_CREDITS,
    CreditAdjusted,
    CreditAdjustment,
    CreditPolicy,
    CreditStatus,
    CreditTransaction,
    ReconciliationPage,
    ReconciliationReport,
    UserCredits,
)
from shopassist.credits.ports import (
    UNFILTERED,
    Adjustment,
    CreditLedger,
    CreditRepositories,
    HistoryFilter,
    IdempotencyStore,
    LedgerReconciliation,
)
from shopassist.db.ports import JobResult, ReplicaReads, UnitOfWork, run_in_batches
from shopassist.errors import (
    GuestLimitError,
    KeyReusedError,
    NotFoundError,
    OverdrawError,
    SessionRefusedError,
    StorageUnavailableError,
)
from shopassist.text import validate_user_id

logger = structlog.get_logger(__name__)

ACCOUNTS_PER_PAGE = 5000


@dataclass(slots=True)
class CreditService:
    """Credit accounts of registered users (OIDC subject) and guests (session id)."""

    ledger: CreditLedger
    replica_reads: ReplicaReads[CreditRepositories]
    policy: CreditPolicy

    async def get_user_credits(self, user_id: str, is_guest: bool = False) -> UserCredits:
        """Return the account after a reset that was due; create it, with its initial credits, if it is missing."""
        return await self.ledger.get_or_create_account(validate_user_id(user_id), is_guest)

    async def get_caller_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        """Return the account of an identified caller: a registered user, or a guest with this session id.

        A guest account becomes a registered user's if such a user has its id. Raises `SessionRefusedError` if a session
        id names a registered account, and `GuestLimitError` if the guest is new and `network` (a keyed hash) has
        reached its daily limit of new guests.
        """
        account = await self.ledger.get_or_create_account(validate_user_id(user_id), is_guest, network)
        if is_guest and not account.is_guest:
            raise SessionRefusedError
        if account.is_guest and not is_guest:
            return await self.ledger.register_guest(user_id)
        return account

    async def check_credits(self, user_id: str, is_guest: bool = False) -> int:
        """Return the available credits, after a reset that was due."""
        return (await self.get_user_credits(user_id, is_guest)).available_credits

    async def deduct_credit(self, user_id: str, is_guest: bool = False, amount: int = 1) -> bool:
        """Deduct `amount` credits. Return False, changing nothing, if it is negative or exceeds the balance."""
        if amount < 0:
            return False
        account = validate_user_id(user_id)
        if amount == 0 or amount > MAX_CREDITS:
            await self.ledger.get_or_create_account(account, is_guest)
            return amount == 0
        return (await self.ledger.deduct(account, is_guest, amount, "Credit deducted for message")).granted

    async def reset_credits(self, user_id: str | None = None) -> None:
        """Refill one registered user now, or all registered users due for a reset. Never lower a balance."""
        if user_id is None:
            await run_in_batches(self.ledger.reset_due_accounts, seconds=inf)
        else:
            await self.ledger.reset(validate_user_id(user_id))

    async def get_credit_status(self, user_id: str, is_guest: bool = False) -> CreditStatus:
        """Return the available credits and the time of the next reset."""
        return self.build_status(await self.get_user_credits(user_id, is_guest))

    async def get_caller_status(self, user_id: str, is_guest: bool, network: str | None = None) -> CreditStatus:
        """Return the status of `get_caller_account`; a new guest whose network is at its limit has no credits."""
        try:
            return self.build_status(await self.get_caller_account(user_id, is_guest, network))
        except GuestLimitError:
            full = self.policy.max_guest_credits
            return CreditStatus(
                available_credits=0, max_credits=full, is_guest=True, can_reset=False, next_reset_time=None
            )

    def build_status(self, account: UserCredits) -> CreditStatus:
        """Return the public status of an account."""
        return CreditStatus(
            available_credits=account.available_credits,
            max_credits=account.max_credits,
            is_guest=account.is_guest,
            can_reset=not account.is_guest,
            next_reset_time=None if account.is_guest else account.last_reset_timestamp + self.policy.reset_interval,
        )

    async def get_user_transactions(
        self, user_id: str, limit: int = 100, before_id: int | None = None, filter_: HistoryFilter = UNFILTERED
    ) -> list[CreditTransaction]:
        """Return transactions, newest first; with `before_id` those older than that row."""
        validate_user_id(user_id)
        return await self.replica_reads.run(
            lambda work: work.credits.get_user_transactions(user_id, limit, before_id, filter_)
        )

    async def get_caller_history(
        self,
        user_id: str,
        is_guest: bool,
        limit: int = 100,
        before_id: int | None = None,
        filter_: HistoryFilter = UNFILTERED,
        network: str | None = None,
    ) -> Sequence[CreditTransaction]:
        """Return transactions of an identified caller; none of a guest whom the limit of the network refuses.

        Raises the other errors of `get_caller_account`. While the primary is down, the account is only read from a
        replica, never created.
        """
        try:
            await self.get_caller_account(user_id, is_guest, network)
        except GuestLimitError:
            return []
        except StorageUnavailableError:
            account = await self.replica_reads.run(lambda work: work.credits.get_user_credits(user_id))
            if is_guest and account is not None and not account.is_guest:
                raise SessionRefusedError from None
        return await self.get_user_transactions(user_id, limit, before_id, filter_)


@dataclass(slots=True)
class AdjustmentService:
    """Adds credits to accounts or removes them, once for each idempotency key of an administrator."""

    ledger: CreditLedger
    replays: IdempotencyStore
    unit_of_work: UnitOfWork[CreditRepositories]

    async def adjust(
        self,
        user_id: str,
        change: CreditAdjustment,
        actor: str,
        idempotency_key: str | None = None,
        request_id: str | None = None,
    ) -> tuple[CreditAdjusted, bool]:
        """Adjust an account and record it in the audit log. Return the outcome and whether it is of an earlier call.

        Raises `NotFoundError` if there is no such account, `OverdrawError` if the balance does not allow the change,
        and `KeyReusedError` if the key was used for another change.
        """
        adjustment = Adjustment(
            operation_id=uuid4(),
            user_id=validate_user_id(user_id),
            amount=change.amount,
            reason=change.reason,
            actor=validate_user_id(actor),
            idempotency_key=idempotency_key,
            request_hash=hash_adjustment(user_id, change),
            request_id=request_id,
        )
        account = await self.ledger.adjust(adjustment)
        if account is not None:
            return adjustment.build_response(account), False
        earlier = await find_response(self.replays, actor, idempotency_key, adjustment.request_hash)
        if earlier is None:
            account = await self.unit_of_work.run(lambda work: work.credits.get_user_credits(user_id), repeatable=True)
            raise OverdrawError() if account else NotFoundError("There is no credit account of this user.")
        return CreditAdjusted.model_validate(earlier), True


async def find_response(
    replays: IdempotencyStore, user_id: str, key: str | None, request_hash: str
) -> dict[str, Any] | None:
    """Return the response stored under an idempotency key. Raises `KeyReusedError` if it was to another request."""
    record = None if key is None else await replays.get(user_id, key)
    if record is None:
        return None
    if record.request_hash != request_hash:
        raise KeyReusedError
    return record.response


def hash_adjustment(user_id: str, change: CreditAdjustment) -> str:
    """Return the SHA-256 of the canonical JSON of an adjustment, as 64 hex characters."""
    canonical = json.dumps({"adjust": user_id, **change.model_dump()}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(slots=True)
class LedgerCompaction:
    """Replaces transactions past the retention of `policy` by opening rows; `last_id` is the position in the ledger."""

    unit_of_work: UnitOfWork[CreditRepositories]
    policy: CreditPolicy
    last_id: int = field(default=0, init=False)

    async def compact_within(self, seconds: float) -> JobResult:
        """Compact transactions for at most `seconds`, continuing where the previous call in this process stopped."""
        give_up_at = time.monotonic() + seconds
        compacted = 0
        while True:
            async with self.unit_of_work() as work:
                batch = await work.credits.compact_transactions(self.policy.retention_days, self.last_id)
            compacted += batch.compacted
            self.last_id = batch.last_id or 0
            if batch.last_id is None:
                return JobResult(compacted)
            if time.monotonic() >= give_up_at:
                return JobResult.incomplete(compacted)


@dataclass(slots=True)
class LedgerReconciliationService:
    """Recomputes every balance from the ledger; `last_report` is the last result in this process, for metrics."""

    reconciliation: LedgerReconciliation
    last_report: ReconciliationReport | None = field(default=None, init=False)
    unfinished: AsyncIterator[ReconciliationPage] | None = field(default=None, init=False)

    async def iterate_pages(self) -> AsyncIterator[ReconciliationPage]:
        """Yield the results for all accounts. Each page is a consistent snapshot of its own."""
        accounts, drifting = 0, 0
        last_user_id: str | None = ""
        while last_user_id is not None:
            page = await self.reconciliation.reconcile_page(last_user_id, ACCOUNTS_PER_PAGE)
            accounts += page.accounts
            drifting += len({drift.user_id for drift in page.drifts})
            last_user_id = page.last_user_id
            yield page
        self.last_report = ReconciliationReport(accounts, drifting, datetime.now(UTC))

    async def verify(self) -> ReconciliationReport | None:
        """Reconcile all accounts and log the number that drift."""
        await self.verify_within(inf)
        return self.last_report

    async def verify_within(self, seconds: float) -> JobResult:
        """Reconcile for at most `seconds`, continuing where the previous call stopped; the result counts accounts."""
        give_up_at = time.monotonic() + seconds
        # An iteration that raises is not stored again, so that the next call starts from the first account.
        iteration, self.unfinished = self.unfinished or self.iterate_pages(), None
        accounts = 0
        async for page in iteration:
            accounts += page.accounts
            if page.last_user_id is not None and time.monotonic() >= give_up_at:
                self.unfinished = iteration
                return JobResult.incomplete(accounts)
        if self.last_report is None or not self.last_report.drifting_accounts:
            return JobResult(accounts)
        drifting = self.last_report.drifting_accounts
        logger.error("ledger_drift", count=drifting)
        return JobResult(accounts, note=f"{drifting} accounts drift: `shopassist credits verify`")

    def build_status(self) -> dict[str, str | int]:
        """Return the last result for the health report."""
        if self.last_report is None:
            return {"verified": "not run here"}
        return {
            "verified": self.last_report.finished_at.isoformat(),
            "accounts": self.last_report.accounts,
            "drifting_accounts": self.last_report.drifting_accounts,
        }
