"""Guest merges in both storages: once, completely, and never of a registered account."""

import asyncio

import pytest

from containers import Container
from shopassist.consent.models import ConsentProvenance, ConsentSource, ConsentSubject
from shopassist.consent.service import ConsentChoice, apply_choices, lock_latest_events
from shopassist.credits.ports import IdempotencyRecord
from shopassist.errors import AccountErasedError, GuestMergedError, NotFoundError
from shopassist.privacy.models import AskedBy, ErasureRequest

USER = "auth0|user"
GUEST = "guest-1"


async def guest_with_answers(container: Container, *keys: str) -> None:
    """Create a guest with answers under these keys and 7 credits left."""
    await container.credit_ledger().deduct(GUEST, True, 3, "Credit deducted for message")
    for key in keys:
        await container.replays().store(IdempotencyRecord(GUEST, key, "h" * 64, {"of": "guest"}))


async def test_a_merge_moves_answers_and_no_credits(container: Container) -> None:
    """Answers move; both accounts and their ledgers stay unchanged."""
    await guest_with_answers(container, "one", "two")
    await container.credit_ledger().get_or_create_account(USER, False)
    await container.replays().store(IdempotencyRecord(USER, "two", "h" * 64, {"of": "user"}))
    merged = await container.guest_merge_service().merge(GUEST, USER)
    assert merged.moved == {"remembered_answers": 1, "consents": 0}
    one, two = [await container.replays().get(USER, key) for key in ("one", "two")]
    assert one is not None
    assert two is not None
    assert (one.response, two.response) == ({"of": "guest"}, {"of": "user"})
    assert await container.replays().get(GUEST, "one") is None
    assert await container.credit_service().check_credits(USER) == 50
    assert await container.credit_service().check_credits(GUEST, True) == 7
    assert len(await container.credit_service().get_user_transactions(USER)) == 1


async def decided(container: Container, subject: ConsentSubject, **granted: bool) -> None:
    """Record decisions by purpose."""
    async with container.unit_of_work()() as work:
        choices = [ConsentChoice(purpose, yes) for purpose, yes in granted.items()]
        latest = await lock_latest_events(work, subject)
        await apply_choices(work, subject, latest, choices, ConsentProvenance(ConsentSource.CONSENTS))


async def test_a_merge_copies_consent(container: Container) -> None:
    """Decisions are copied, also without an account, except for purposes the user decided."""
    user = ConsentSubject(USER, is_guest=False)
    await decided(container, ConsentSubject(GUEST, is_guest=True), terms=True, marketing=True)
    await decided(container, user, marketing=False)
    assert (await container.guest_merge_service().merge(GUEST, USER)).moved == {"consents": 1}
    async with container.unit_of_work()() as work:
        state = await work.consent_history.get_latest_events(user)
    assert {purpose: (event.granted, event.source) for purpose, event in state.items()} == {
        "terms": (True, "guest_merge"),
        "marketing": (False, "consents"),
    }


async def test_a_merge_is_done_once(container: Container) -> None:
    """A repetition returns the first result and moves nothing; another user is refused."""
    await guest_with_answers(container, "one")
    service = container.guest_merge_service()
    first = await service.merge(GUEST, USER)
    await container.replays().store(IdempotencyRecord(GUEST, "later", "h" * 64, {}))
    assert await service.merge(GUEST, USER) == first
    assert await container.replays().get(USER, "later") is None
    with pytest.raises(GuestMergedError):
        await service.merge(GUEST, "auth0|other")


async def test_concurrent_merges_of_a_guest(container: Container) -> None:
    """When two users claim a guest concurrently, one gets it and the other is refused."""
    await guest_with_answers(container, "one")
    names = [f"auth0|{number}" for number in range(5)]
    outcomes = await asyncio.gather(
        *(container.guest_merge_service().merge(GUEST, name) for name in names), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["GuestMerged"] + ["GuestMergedError"] * 4
    [winner] = [name for name, outcome in zip(names, outcomes, strict=True) if not isinstance(outcome, Exception)]
    assert await container.replays().get(winner, "one") is not None


@pytest.mark.parametrize("named", ["auth0|victim", "victim", "unknown", USER])
async def test_only_a_guest_can_be_merged(container: Container, named: str) -> None:
    """A registered account gets the same error as an unknown id."""
    for victim in ("auth0|victim", "victim", USER):
        await container.credit_ledger().get_or_create_account(victim, False)
        await container.replays().store(IdempotencyRecord(victim, "key", "h" * 64, {}))
    with pytest.raises(NotFoundError):
        await container.guest_merge_service().merge(named, USER)
    assert await container.replays().get("victim", "key") is not None


async def test_no_merge_during_an_erasure(container: Container) -> None:
    """Otherwise erased data would return under another id."""
    await guest_with_answers(container, "one")
    request = ErasureRequest(GUEST, container.user_hasher()(GUEST), True, AskedBy.USER)
    begun = await container.erasures().begin(request)
    assert begun is not None
    with pytest.raises(AccountErasedError):
        await container.guest_merge_service().merge(GUEST, USER)
    await container.erasure_service().finish_pending()
    with pytest.raises(NotFoundError):
        await container.guest_merge_service().merge(GUEST, USER)


async def test_a_merge_stays_without_the_erased_user(container: Container) -> None:
    """After the user's erasure the guest cannot be merged again; after the guest's the merge is deleted."""
    await guest_with_answers(container, "one")
    await container.credit_ledger().get_or_create_account(USER, False)
    service = container.guest_merge_service()
    await service.merge(GUEST, USER)
    receipt = await container.erasure_service().erase(USER, False)
    assert receipt.erased["remembered_answers"] == 1
    assert receipt.pseudonymised["merged_guests"] == 1
    with pytest.raises(GuestMergedError):
        await service.merge(GUEST, USER)
    assert (await container.erasure_service().erase(GUEST, True)).erased["merged_into"] == 1
