"""Corrections of accounts by administrators."""

import hashlib
import json
from uuid import uuid4

from shopassist.db.ports import CreditLedger, Replays, UnitOfWork
from shopassist.errors import KeyReusedError, NotFoundError, OverdrawError
from shopassist.models.adjustment import CreditAdjusted, CreditAdjustment
from shopassist.models.ledger import Adjustment
from shopassist.models.text import valid_user_id


class AdjustmentService:
    """Adds credits to accounts and takes them away, once for each idempotency key of an administrator."""

    def __init__(self, ledger: CreditLedger, replays: Replays, unit_of_work: UnitOfWork) -> None:
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
            user_id=valid_user_id(user_id),
            amount=change.amount,
            reason=change.reason,
            actor=valid_user_id(actor),
            idempotency_key=idempotency_key,
            request_hash=request_hash(user_id, change),
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
        replay = await self._replays.find(adjustment.actor, adjustment.idempotency_key)
        if replay is None:
            return None
        if replay.request_hash != adjustment.request_hash:
            raise KeyReusedError
        return CreditAdjusted.model_validate(replay.response)

    async def _refusal(self, user_id: str) -> NotFoundError | OverdrawError:
        account = await self._unit_of_work.about(user_id).run(
            lambda work: work.credits.get_user_credits(user_id), repeatable=True
        )
        return NotFoundError("There is no credit account of this user.") if account is None else OverdrawError()


def request_hash(user_id: str, change: CreditAdjustment) -> str:
    """What tells a change of one account from another: SHA-256 of its canonical JSON, as 64 hex characters."""
    canonical = json.dumps({"adjust": user_id, **change.model_dump()}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
