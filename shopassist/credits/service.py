"""Credit service: balances, deductions, resets, history, and adjustments by administrators."""

import hashlib
import json
from collections.abc import Sequence
from math import inf
from uuid import uuid4

from shopassist.credits.models import (
    CreditAdjusted,
    CreditAdjustment,
    CreditPolicy,
    CreditStatus,
    CreditTransaction,
    UserCredits,
)
from shopassist.credits.ports import (
    UNFILTERED,
    Adjustment,
    CompactionBatch,
    CreditLedger,
    CreditRepositories,
    HistoryFilter,
    IdempotencyStore,
)
from shopassist.db.ports import ReplicaReads, UnitOfWork
from shopassist.db.row_batches import run_in_batches
from shopassist.errors import KeyReusedError, NotFoundError, OverdrawError, SessionRefusedError, StorageUnavailableError
from shopassist.text import validate_user_id

COMPACTION_BATCH_ROWS = 1000
"""Ledger rows that one transaction of retention looks at."""


class CreditService:
    """Accounts of whole credits, keyed by an OIDC subject or a guest session id."""

    def __init__(
        self,
        ledger: CreditLedger,
        unit_of_work: UnitOfWork[CreditRepositories],
        policy: CreditPolicy,
        lagging_reads: ReplicaReads[CreditRepositories] | None = None,
    ) -> None:
        """`ledger` moves credits; `lagging_reads` reads history, or else `unit_of_work` does."""
        self._ledger = ledger
        self._lagging_reads = lagging_reads or unit_of_work
        self._unit_of_work = unit_of_work
        self._policy = policy

    async def get_user_credits(self, user_id: str, is_guest: bool = False) -> UserCredits:
        """The account, created with its first credits on first sight, after a reset that was due."""
        return await self._ledger.get_or_create_account(validate_user_id(user_id), is_guest)

    async def get_caller_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        """The account of a caller who proved to be `user_id`, or who is a guest of that session id.

        Raises `SessionRefusedError` when a session id names a registered account, and `GuestLimitError` when it is new
        and `network`, a keyed hash, has had as many new guests as it may have today. A registered user whose id a guest
        session had taken before gets the account, filled up to a registered user's credits.
        """
        account = await self._ledger.get_or_create_account(validate_user_id(user_id), is_guest, network)
        if is_guest and not account.is_guest:
            raise SessionRefusedError
        if account.is_guest and not is_guest:
            return await self._ledger.register_guest(user_id)
        return account

    async def check_credits(self, user_id: str, is_guest: bool = False) -> int:
        """Credits that can be spent now, after a reset that was due."""
        return (await self.get_user_credits(user_id, is_guest)).available_credits

    async def deduct_credit(self, user_id: str, is_guest: bool = False, amount: int = 1) -> bool:
        """Spend `amount` credits, or, when that is negative or more than there is, change nothing and say False."""
        if amount < 0:
            return False
        account = validate_user_id(user_id)
        if amount == 0 or amount > self._policy.largest_amount:
            await self._ledger.get_or_create_account(account, is_guest)
            return amount == 0
        return (await self._ledger.deduct(account, is_guest, amount, "Credit deducted for message")).granted

    async def reset_credits(self, user_id: str | None = None) -> None:
        """Refill one registered user now, or every registered user whose reset is due. Never lowers a balance."""
        if user_id is not None:
            await self._ledger.reset(validate_user_id(user_id))
            return
        await run_in_batches(self._ledger.reset_due_accounts, seconds=inf)

    async def get_credit_status(self, user_id: str, is_guest: bool = False) -> CreditStatus:
        """What can be spent, and when it comes back."""
        return self.build_status(await self.get_user_credits(user_id, is_guest))

    def build_status(self, account: UserCredits) -> CreditStatus:
        """The status that an account shows."""
        return CreditStatus(
            available_credits=account.available_credits,
            max_credits=account.max_credits,
            is_guest=account.is_guest,
            can_reset=not account.is_guest,
            next_reset_time=None if account.is_guest else account.last_reset_timestamp + self._policy.reset_interval,
        )

    async def get_user_transactions(
        self,
        user_id: str,
        limit: int = 100,
        before_id: int | None = None,
        filter_: HistoryFilter = UNFILTERED,
    ) -> list[CreditTransaction]:
        """Newest first; with `before_id` those older than that row."""
        validate_user_id(user_id)
        return await self._lagging_reads.run(
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
        """Return the history of a caller, as `get_caller_account`.

        While the primary is down, the account is only read from a replica, never created.
        """
        try:
            await self.get_caller_account(user_id, is_guest, network)
        except StorageUnavailableError:
            account = await self._lagging_reads.run(lambda work: work.credits.get_user_credits(user_id))
            if is_guest and account is not None and not account.is_guest:
                raise SessionRefusedError from None
        return await self.get_user_transactions(user_id, limit, before_id, filter_)

    async def compact_old_transactions(self) -> int:
        """Fold what is past its retention into opening rows, each batch for itself; how many transactions."""
        folded, last_id = 0, 0
        while True:
            fold = await self.compact_batch(last_id)
            folded += fold.compacted
            if fold.last_id is None:
                return folded
            last_id = fold.last_id

    async def compact_batch(self, after_id: int) -> CompactionBatch:
        """One batch of `fold_old_transactions`, behind the row `after_id`."""
        async with self._unit_of_work() as work:
            return await work.credits.compact_transactions(self._policy.retention_days, after_id, COMPACTION_BATCH_ROWS)


class AdjustmentService:
    """Adds credits to accounts and takes them away, once for each idempotency key of an administrator."""

    def __init__(
        self, ledger: CreditLedger, replays: IdempotencyStore, unit_of_work: UnitOfWork[CreditRepositories]
    ) -> None:
        """`replays` holds what was answered under a key."""
        self._ledger = ledger
        self._replays = replays
        self._unit_of_work = unit_of_work

    async def adjust(
        self,
        user_id: str,
        change: CreditAdjustment,
        actor: str,
        idempotency_key: str | None = None,
        request_id: str | None = None,
    ) -> tuple[CreditAdjusted, bool]:
        """The outcome, and whether it is that of an earlier call with the same key; one that is new goes to the audit.

        Raises `NotFoundError` when there is no such account, `OverdrawError` when it cannot bear the change, and
        `KeyReusedError` when the key came with another change before.
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
        earlier = await self._earlier(adjustment)
        if earlier is not None:
            return earlier, True
        account = await self._ledger.adjust(adjustment)
        if account is None:
            # A call with the same key may have come first, in whose stead nothing was done.
            earlier = await self._earlier(adjustment)
            if earlier is None:
                raise await self._refusal(adjustment.user_id)
            return earlier, True
        adjusted = CreditAdjusted(
            **change.model_dump(),
            user_id=account.user_id,
            actor=actor,
            available_credits=account.available_credits,
            max_credits=account.max_credits,
        )
        return adjusted, False

    async def _earlier(self, adjustment: Adjustment) -> CreditAdjusted | None:
        if adjustment.idempotency_key is None:
            return None
        replay = await self._replays.get(adjustment.actor, adjustment.idempotency_key)
        if replay is None:
            return None
        if replay.request_hash != adjustment.request_hash:
            raise KeyReusedError
        return CreditAdjusted.model_validate(replay.response)

    async def _refusal(self, user_id: str) -> NotFoundError | OverdrawError:
        account = await self._unit_of_work.run(lambda work: work.credits.get_user_credits(user_id), repeatable=True)
        return NotFoundError("There is no credit account of this user.") if account is None else OverdrawError()


def hash_adjustment(user_id: str, change: CreditAdjustment) -> str:
    """What tells a change of one account from another: SHA-256 of its canonical JSON, as 64 hex characters."""
    canonical = json.dumps({"adjust": user_id, **change.model_dump()}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
