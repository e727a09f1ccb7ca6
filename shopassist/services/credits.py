"""Credits: what an account may spend, spending it, and its history."""

from collections.abc import Sequence
from math import inf

from shopassist.db.freshness import LaggingReads
from shopassist.db.ports import CreditLedger, UnitOfWork
from shopassist.errors import SessionRefusedError, StorageUnavailableError
from shopassist.models import CreditStatus, CreditTransaction, UserCredits
from shopassist.models.ledger import EVERYTHING, CreditPolicy, Fold, HistoryFilter
from shopassist.models.text import valid_user_id
from shopassist.services.batches import in_batches

FOLD_BATCH = 1000
"""Ledger rows that one transaction of retention looks at."""


class CreditService:
    """Accounts of whole credits, keyed by an OIDC subject or a guest session id."""

    def __init__(
        self,
        ledger: CreditLedger,
        unit_of_work: UnitOfWork,
        policy: CreditPolicy,
        lagging_reads: LaggingReads | None = None,
    ) -> None:
        """`ledger` moves credits; `lagging_reads` reads history, or else `unit_of_work` does."""
        self._ledger = ledger
        self._lagging_reads = lagging_reads or unit_of_work
        self._unit_of_work = unit_of_work
        self._policy = policy

    async def get_user_credits(self, user_id: str, is_guest: bool = False) -> UserCredits:
        """The account, created with its first credits on first sight, after a reset that was due."""
        return await self._ledger.account(valid_user_id(user_id), is_guest)

    async def own_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        """The account of a caller who proved to be `user_id`, or who is a guest of that session id.

        Raises `SessionRefusedError` when a session id names a registered account, and `GuestLimitError` when it is new
        and `network`, a keyed hash, has had as many new guests as it may have today. A registered user whose id a guest
        session had taken before gets the account, filled up to a registered user's credits.
        """
        account = await self._ledger.account(valid_user_id(user_id), is_guest, network)
        if is_guest and not account.is_guest:
            raise SessionRefusedError
        if account.is_guest and not is_guest:
            return await self._ledger.register(user_id)
        return account

    async def check_credits(self, user_id: str, is_guest: bool = False) -> int:
        """Credits that can be spent now, after a reset that was due."""
        return (await self.get_user_credits(user_id, is_guest)).available_credits

    async def deduct_credit(self, user_id: str, is_guest: bool = False, amount: int = 1) -> bool:
        """Spend `amount` credits, or, when that is negative or more than there is, change nothing and say False."""
        if amount < 0:
            return False
        account = valid_user_id(user_id)
        if amount == 0 or amount > self._policy.largest_amount:
            await self._ledger.account(account, is_guest)
            return amount == 0
        return (await self._ledger.deduct(account, is_guest, amount, "Credit deducted for message")).granted

    async def reset_credits(self, user_id: str | None = None) -> None:
        """Refill one registered user now, or every registered user whose reset is due. Never lowers a balance."""
        if user_id is not None:
            await self._ledger.reset(valid_user_id(user_id))
            return
        await in_batches(self._ledger.reset_due, seconds=inf)

    async def get_credit_status(self, user_id: str, is_guest: bool = False) -> CreditStatus:
        """What can be spent, and when it comes back."""
        return self.status_of(await self.get_user_credits(user_id, is_guest))

    def status_of(self, account: UserCredits) -> CreditStatus:
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
        wanted: HistoryFilter = EVERYTHING,
    ) -> list[CreditTransaction]:
        """Newest first; with `before_id` those older than that row."""
        valid_user_id(user_id)
        return await self._lagging_reads.about(user_id).run(
            lambda work: work.credits.get_user_transactions(user_id, limit, before_id, wanted)
        )

    async def own_history(
        self,
        user_id: str,
        is_guest: bool,
        limit: int = 100,
        before_id: int | None = None,
        wanted: HistoryFilter = EVERYTHING,
        network: str | None = None,
    ) -> Sequence[CreditTransaction]:
        """The history of a caller as in `own_account`, which with the primary gone is only looked at and not opened."""
        try:
            await self.own_account(user_id, is_guest, network)
        except StorageUnavailableError:
            account = await self._lagging_reads.about(user_id).run(lambda work: work.credits.get_user_credits(user_id))
            if is_guest and account is not None and not account.is_guest:
                raise SessionRefusedError from None
        return await self.get_user_transactions(user_id, limit, before_id, wanted)

    async def fold_old_transactions(self) -> int:
        """Fold what is past its retention into opening rows, each batch for itself; how many transactions."""
        folded, last_id = 0, 0
        while True:
            fold = await self.fold_batch(last_id)
            folded += fold.folded
            if fold.last_id is None:
                return folded
            last_id = fold.last_id

    async def fold_batch(self, after_id: int) -> Fold:
        """One batch of `fold_old_transactions`, behind the row `after_id`."""
        async with self._unit_of_work() as work:
            return await work.credits.fold_transactions(self._policy.retention_days, after_id, FOLD_BATCH)
