"""Erasure in both storages: no personal data is left, sums stay consistent, and returning refills nothing."""

import json
from datetime import timedelta
from uuid import uuid4

import pytest

from containers import Container
from shopassist.consent.models import UserConsentCreate
from shopassist.credits.models import CreditAdjustment, TransactionType
from shopassist.credits.ports import CreditRequest, IdempotencyRecord, Settlement
from shopassist.db.resilience import limit_time
from shopassist.errors import AccountErasedError, NotFoundError, SessionRefusedError
from shopassist.privacy.models import AskedBy, ErasureListEntry, ErasureReceipt, ErasureRequest
from shopassist.privacy.personal_data import PERSONAL_DATA_TABLES
from tests.support.helpers import FixedClock

USER = "auth0|erased-marker"
GUEST = "guest-erased-marker"


async def use(container: Container, user_id: str = USER, is_guest: bool = False) -> None:
    """Create rows in every table: ledger, hold, consent, idempotent answers, adjustment."""
    ledger = container.credit_ledger()
    await ledger.get_or_create_account(user_id, is_guest)
    await ledger.deduct(user_id, is_guest, 3, "Credit deducted for message")
    await ledger.place_hold(CreditRequest(uuid4(), user_id, is_guest, 2, "q" * 64, "key-held"))
    await container.replays().store(IdempotencyRecord(user_id, "key", "h" * 64, {"metadata": {"user_id": user_id}}))
    change = CreditAdjustment(amount=1, reason=f"Sorry, {user_id}")
    await container.adjustment_service().adjust(user_id, change, "auth0|administrator", f"sorry-{user_id}")
    if not is_guest:
        await container.consent_service().create_consent(user_id, UserConsentCreate())


async def document(container: Container, user_id: str, is_guest: bool | None) -> dict[str, list[dict[str, object]]]:
    """Return the data of an export."""
    parts = [part async for part in await container.export_service().export(user_id, is_guest)]
    held: dict[str, list[dict[str, object]]] = json.loads(b"".join(parts))["held"]
    return held


async def drifts(container: Container) -> int:
    """Return the number of accounts that differ from the ledger."""
    report = await container.ledger_reconciliation().verify()
    assert report is not None
    return report.drifting_accounts


async def erase(container: Container, user_id: str = USER, is_guest: bool | None = False) -> ErasureReceipt:
    """Erase a user completely."""
    return await container.erasure_service().erase(user_id, is_guest, patience_seconds=60)


async def test_all_data_is_exported_and_then_erased(container: Container) -> None:
    """Each kind of data is in the export, then in the receipt, then deleted; the ledger is consistent."""
    await use(container)
    held = await document(container, USER, False)
    assert {name: len(rows) for name, rows in held.items()} == {
        "account": 1,
        "holds": 1,
        "transactions": 3,
        "consents": 1,
        "consent_history": 1,
        "remembered_answers": 1,
        "remembered_adjustments": 1,
        "administrators_acts": 1,
        "merged_guests": 0,
        "merged_into": 0,
    }
    assert "auth0|administrator" not in json.dumps(held)
    receipt = await erase(container)
    assert receipt.finished_at is not None
    assert receipt.erased == {
        "account": 1,
        "holds": 1,
        "consents": 1,
        "consent_history": 1,
        "remembered_answers": 1,
        "remembered_adjustments": 1,
    }
    assert receipt.pseudonymised == {"transactions": 3, "administrators_acts": 1}
    assert "erased-marker" not in receipt.model_dump_json()
    assert all(not rows for rows in (await document(container, USER, False)).values())
    assert await drifts(container) == 0


async def test_the_ledger_stays_under_a_pseudonym_and_sums_to_zero(container: Container) -> None:
    """All rows stay in order without personal data; the last one takes the remaining balance."""
    await use(container)
    store_before = await container.credit_service().get_user_transactions(USER)
    await erase(container)
    [pseudonym] = await pseudonyms(container)
    rows = (await container.credit_service().get_user_transactions(pseudonym))[::-1]
    assert [row.amount for row in rows] == [50, -3, 1, -48]
    assert [row.balance_after for row in rows] == [50, 47, 48, 0]
    assert rows[-1].transaction_type == TransactionType.ERASE
    assert [row.id for row in rows[:-1]] == [row.id for row in store_before[::-1]]
    assert [row.description for row in rows[:-1]] == [None] * 3
    account = await container.credit_ledger().get_or_create_account(pseudonym, is_guest=True)
    assert (account.available_credits, account.held_credits) == (0, 0)


async def pseudonyms(container: Container) -> list[str]:
    """Return the pseudonyms of erased accounts."""
    [accounts] = [one for one in PERSONAL_DATA_TABLES if one.name == "account"]
    owners = await container.personal_data().list_owners(accounts, 1000)
    return [owner.user_id for owner in owners if owner.user_id.startswith("erased|")]


async def test_a_pseudonym_is_never_refilled(container: Container, clock: FixedClock) -> None:
    """No later reset gives credits to a pseudonym."""
    await use(container)
    await erase(container)
    clock.move(days=3)
    await container.credit_service().reset_credits()
    [pseudonym] = await pseudonyms(container)
    assert await container.credit_service().check_credits(pseudonym, is_guest=True) == 0
    assert await drifts(container) == 0


async def test_erasing_again_gives_the_same_receipt(container: Container) -> None:
    """A repetition changes nothing; an unknown user gets an error."""
    await use(container)
    assert await erase(container) == await erase(container)
    with pytest.raises(NotFoundError):
        await erase(container, "auth0|stranger")


async def test_returning_within_the_period_refills_nothing(container: Container, clock: FixedClock) -> None:
    """Within the period the balance, with released holds, and the next reset stay the same."""
    await use(container)
    await erase(container)
    clock.move(hours=1)
    account = await container.credit_ledger().get_or_create_account(USER, is_guest=False)
    assert (account.available_credits, account.max_credits, account.held_credits) == (48, 50, 0)
    assert account.last_reset_timestamp == clock.time - timedelta(hours=1)
    assert await drifts(container) == 0
    clock.move(hours=23)
    assert await container.credit_service().check_credits(USER) == 50


@pytest.mark.parametrize(("user_id", "is_guest", "credits_"), [(USER, False, 50), (GUEST, True, 10)])
async def test_returning_after_spending_all_gives_no_credits(
    container: Container, clock: FixedClock, user_id: str, is_guest: bool, credits_: int
) -> None:
    """However often they erase: an empty account has no ledger row, and stays empty."""
    await container.credit_ledger().deduct(user_id, is_guest, credits_, "x")
    for _ in range(3):
        await erase(container, user_id, is_guest)
        clock.move(seconds=1)
        assert await container.credit_service().check_credits(user_id, is_guest) == 0
        assert not await container.credit_service().deduct_credit(user_id, is_guest)
    assert await drifts(container) == 0


async def test_balances_expire_with_their_period(container: Container, clock: FixedClock) -> None:
    """A registered user's balance is deleted after the period, a guest's after the ledger's retention."""
    await container.credit_ledger().deduct(USER, False, 50, "x")
    await container.credit_ledger().deduct(GUEST, True, 10, "x")
    await erase(container)
    await erase(container, GUEST, True)
    service = container.erasure_service()
    assert (await service.delete_expired()).rows == 0
    clock.move(hours=24)
    assert (await service.delete_expired()).rows == 1
    assert await container.credit_service().check_credits(USER) == 50
    assert await container.credit_service().check_credits(GUEST, True) == 0
    await erase(container, GUEST, True)
    clock.move(days=90)
    assert (await service.delete_expired()).rows == 1
    assert await container.credit_service().check_credits(GUEST, True) == 10
    clock.move(days=365)
    assert (await service.delete_expired()).rows == 3
    assert await service.list_erasures() == []


async def test_a_request_from_before_the_erasure_creates_no_rows(container: Container, clock: FixedClock) -> None:
    """A request from before the erasure leaves no rows and cannot open the account again."""
    hold = CreditRequest(uuid4(), USER, False, 1, "q" * 64, "key")
    with limit_time(60):
        await container.credit_ledger().place_hold(hold)
        await erase(container)
        replay = IdempotencyRecord(USER, "key", "q" * 64, {})
        assert not await container.credit_ledger().settle(Settlement(hold.operation_id, USER, "x", None, replay))
        assert not await container.credit_ledger().void(hold.operation_id, USER)
        await container.replays().store(replay)
        with pytest.raises(AccountErasedError):
            await container.credit_ledger().get_or_create_account(USER, False)
        with pytest.raises(AccountErasedError):
            await container.credit_ledger().place_hold(hold)
    assert all(not rows for rows in (await document(container, USER, False)).values())
    clock.move(seconds=1)
    with limit_time(60):
        assert (await container.credit_ledger().get_or_create_account(USER, False)).available_credits == 50


async def test_a_partial_erasure_is_consistent_and_the_account_stays_closed(container: Container) -> None:
    """Between steps the ledger is consistent; any process finishes the same erasure, once."""
    await use(container)
    for _ in range(6):
        await container.credit_ledger().deduct(USER, False, 1, "x")
    erasures = container.erasures()
    request = ErasureRequest(USER, container.user_hasher()(USER), False, AskedBy.USER)
    begun = await erasures.begin(request)
    assert begun is not None
    for _ in range(4):
        assert await drifts(container) == 0
        assert (await erasures.advance(begun.id, limit=2)).finished_at is None
        with pytest.raises(AccountErasedError):
            await container.credit_ledger().get_or_create_account(USER, False)
    again = await erasures.begin(request)
    assert again is not None
    assert again.id == begun.id
    assert (await container.erasure_service().finish_pending()).rows == 1
    assert (await container.erasure_service().finish_pending()).rows == 0
    receipt = await erase(container)
    assert receipt.receipt_id == begun.id
    assert receipt.pseudonymised == {"transactions": 9, "administrators_acts": 1}
    assert await drifts(container) == 0


async def test_a_guest_cannot_erase_or_export_a_registered_account(container: Container) -> None:
    """A session id that names a registered account is refused, also during its erasure."""
    await use(container, "plain-subject")
    with pytest.raises(SessionRefusedError):
        await erase(container, "plain-subject", True)
    with pytest.raises(SessionRefusedError):
        await container.export_service().export("plain-subject", True)
    request = ErasureRequest("plain-subject", container.user_hasher()("plain-subject"), False, AskedBy.USER)
    await container.erasures().begin(request)
    with pytest.raises(SessionRefusedError):
        await erase(container, "plain-subject", True)
    assert not any((await document(container, "plain-subject", True)).values())
    await container.consent_service().create_consent("only-consent", UserConsentCreate())
    with pytest.raises(NotFoundError):
        await erase(container, "only-consent", True)
    assert await container.consent_service().get_consent("only-consent") is not None


async def test_a_guest_cannot_take_the_id_of_an_erased_user(container: Container, clock: FixedClock) -> None:
    """A guest cannot open it with a guest's credits, which a login would refill."""
    await container.credit_ledger().deduct("plain-subject", False, 50, "x")
    await erase(container, "plain-subject")
    clock.move(seconds=1)
    with pytest.raises(SessionRefusedError):
        await container.credit_service().get_caller_account("plain-subject", is_guest=True)
    assert (await container.credit_service().get_caller_account("plain-subject", is_guest=False)).available_credits == 0


async def test_a_guests_erasure_does_not_affect_the_user_of_the_same_id(
    container: Container, clock: FixedClock
) -> None:
    """A guest's erased balance does not count for the registered user of the same id."""
    await container.credit_ledger().deduct("plain-subject", True, 10, "x")
    await erase(container, "plain-subject", True)
    clock.move(seconds=1)
    assert (
        await container.credit_service().get_caller_account("plain-subject", is_guest=False)
    ).available_credits == 50


async def test_an_operator_can_erase_guests_and_users(container: Container) -> None:
    """The account decides whether it is a guest; a consent without an account is erased too."""
    await use(container, GUEST, is_guest=True)
    assert (await erase(container, GUEST, None)).erased["account"] == 1
    await container.consent_service().create_consent(USER, UserConsentCreate())
    assert (await erase(container, USER, None)).erased == {"consents": 1, "consent_history": 1}
    assert await drifts(container) == 0


async def test_erasures_are_repeated_for_older_data(container: Container, clock: FixedClock) -> None:
    """Listed users with older data are erased again; other users and newer data stay."""
    subjects = container.user_hasher()
    await use(container)
    await container.credit_ledger().get_or_create_account("auth0|other", False)
    await container.consent_service().create_consent("auth0|consent-only", UserConsentCreate())
    clock.move(hours=1)
    await container.credit_ledger().get_or_create_account("auth0|returned", False)
    erased_at = clock.time - timedelta(minutes=30)
    names = (USER, "auth0|consent-only", "auth0|returned")
    listed = {subjects(name): ErasureListEntry(uuid4(), subjects(name), erased_at) for name in names}
    service = container.erasure_service()
    first = await service.repeat_listed(listed)
    assert sorted(receipt.erased.get("account", 0) for receipt in first) == [0, 1]
    assert not any((await document(container, USER, False)).values())
    assert not any((await document(container, "auth0|consent-only", False)).values())
    assert (await document(container, "auth0|returned", False))["account"]
    assert (await document(container, "auth0|other", False))["account"]
    assert await service.repeat_listed(listed) == []
    assert await drifts(container) == 0
