"""What the first step of an erasure decides and makes, whichever database keeps it."""

from datetime import datetime
from uuid import uuid4

from shopassist.errors import SessionRefusedError
from shopassist.models.credits import CreditTransaction, TransactionType, UserCredits
from shopassist.models.erasure import ErasedBalance, Erasure, ErasurePolicy, ErasureRequest


def is_of_guest(request: ErasureRequest, account: UserCredits | None, last: Erasure | None) -> bool:
    """Whether a guest is to be erased, whose account and last erasure these are.

    Raises `SessionRefusedError` for a guest who names a registered account, be it half erased.
    """
    if request.is_guest is None:
        return account.is_guest if account else False
    found = account or (last if last and last.finished_at is None else None)
    if request.is_guest and found and not found.is_guest:
        raise SessionRefusedError
    return request.is_guest


def begun(request: ErasureRequest, is_guest: bool, had_account: bool, now: datetime) -> Erasure:
    """An erasure that nothing was done for yet. No session id has a bar in it, so no guest has the pseudonym."""
    return Erasure(
        subject_hash=request.subject_hash,
        is_guest=is_guest,
        had_account=had_account,
        asked_by=request.asked_by.value,
        requested_at=now,
        user_id=request.user_id,
        pseudonym=f"erased|{uuid4().hex}",
        counts={},
    )


def balance_of(account: UserCredits, erasure: Erasure, policy: ErasurePolicy) -> ErasedBalance:
    """What an account has left, once its holds are given back."""
    last_reset = account.last_reset_timestamp
    return ErasedBalance(
        subject_hash=erasure.subject_hash,
        is_guest=account.is_guest,
        available_credits=account.available_credits + account.held_credits,
        last_reset_timestamp=last_reset,
        forget_at=policy.forget_at(account.is_guest, last_reset, erasure.requested_at),
    )


def closed(account: UserCredits, erasure: Erasure) -> UserCredits:
    """The account that the ledger rows of an erased one belong to: empty, and never refilled, as a guest's."""
    now = erasure.requested_at
    return UserCredits(
        user_id=erasure.pseudonym or "",
        is_guest=True,
        available_credits=0,
        held_credits=0,
        max_credits=account.max_credits,
        last_reset_timestamp=now,
        created_at=now,
        updated_at=now,
    )


def closing(account: UserCredits, erasure: Erasure) -> CreditTransaction | None:
    """The ledger row that takes what an erased account had left, if it had anything."""
    balance = account.available_credits + account.held_credits
    if not balance:
        return None
    return CreditTransaction(
        user_id=erasure.pseudonym or "",
        transaction_type=TransactionType.ERASE.value,
        amount=-balance,
        timestamp=erasure.requested_at,
        description="Account erased",
        balance_after=0,
    )
