"""A rollout on a real PostgreSQL: what moves, what is compared, and what happens when the database goes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from containers import Container
from shopassist.audit.models import AdminAct
from shopassist.cache.models import StoredAnswer
from shopassist.consent.models import UserConsentCreate
from shopassist.credits.models import CreditAdjustment
from shopassist.credits.ports import HoldRequest, Settlement
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.errors import StartupError, StorageUnavailableError
from shopassist.privacy.models import AskedBy, ErasureRequest
from shopassist.rollout import background, controller
from shopassist.rollout.models import Assignment
from shopassist.server import run_server
from shopassist.settings import Settings, Storage, StorageSettings
from shopassist.settings.server import ServerSettings
from tests.support.databases import OwnPostgres, own_postgres
from tests.support.helpers import execute, postgres_settings

USERS = [f"auth0|{number}" for number in range(20)]
Begin = Callable[..., "asyncio.Future[Container]"]


def rollout_settings(url: str, percent: float = 0, shadow: bool = False) -> Settings:
    """Settings of a rollout."""
    storage = StorageSettings(storage=Storage.ROLLOUT, rollout_percent=percent, rollout_shadow=shadow)
    return postgres_settings(url).model_copy(update={"storage": storage})


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Begins a rollout, as a server does."""
    async with AsyncExitStack() as stack:

        async def begun(url: str, percent: float = 0, shadow: bool = False, works: bool = False) -> Container:
            container = Container(settings=rollout_settings(url, percent, shadow))
            stack.push_async_callback(container.shutdown)
            await container.rollout().begin()
            if works:
                await stack.enter_async_context(container.rollout().running())
            return container

        yield begun  # type: ignore[misc]


async def balances(container: Container) -> dict[str, int]:
    """What everybody may spend."""
    return {user_id: await container.credit_service().check_credits(user_id) for user_id in USERS}


async def spend(container: Container, amount: int = 1) -> None:
    """Everybody spends."""
    for user_id in USERS:
        assert await container.credit_service().deduct_credit(user_id, amount=amount)


async def until_moved(container: Container) -> None:
    """Wait until everybody is where they are wanted."""
    async with asyncio.timeout(20):
        while (await container.rollout().get_status()).to_move:
            await asyncio.sleep(0.02)


async def test_people_move_without_asking(begin: Begin, database_url: str) -> None:
    """Turned up, the dial brings everybody's state to PostgreSQL; turned down, back; holds go along."""
    container = await begin(database_url, works=True)
    await spend(container)
    holds = [HoldRequest(uuid4(), user_id, False, 2) for user_id in USERS]
    for hold in holds:
        assert (await container.credit_ledger().place_hold(hold)).granted
    container.rollout().set(100)
    await until_moved(container)
    assert (await container.rollout().get_status()).postgres.users == len(USERS)
    for hold in holds[:10]:
        assert await container.credit_ledger().settle(Settlement(hold.hold_id, hold.user_id, "A question"))
    container.rollout().set(0)
    await until_moved(container)
    status = await container.rollout().get_status()
    assert (status.memory.users, status.postgres.users) == (len(USERS), 0)
    for hold in holds[10:]:
        assert await container.credit_ledger().void(hold.hold_id, hold.user_id)
    assert set((await balances(container)).values()) == {47, 49}


async def test_an_answer_is_not_paid_for_again(begin: Begin, database_url: str) -> None:
    """Whoever moves after they were answered finds the answer."""
    container = await begin(database_url)
    answer = StoredAnswer("a" * 64, '{"recommendations_summary": "one"}', container.settings().cache.validity)
    hold = HoldRequest(uuid4(), USERS[0], False)
    await container.credit_ledger().place_hold(hold)
    await container.credit_ledger().settle(Settlement(hold.hold_id, USERS[0], "A question", answer))
    container.rollout().set(100)
    await container.credit_service().check_credits(USERS[0])
    assert container.rollout_storage().placement().get_storage(USERS[0]) is Storage.POSTGRES
    assert await container.cached_answers().find("a" * 64) == {"recommendations_summary": "one"}


async def test_shadowing_finds_a_difference(begin: Begin, database_url: str) -> None:
    """Somebody's copy on the other side that was tampered with is counted, brought in step, and agrees from then on."""
    container = await begin(database_url, shadow=True)
    user_id = USERS[0]
    await container.credit_service().deduct_credit(user_id)
    await container.rollout_storage().router().close()
    await execute(database_url, "UPDATE user_credits SET available_credits = 7")
    assert await container.credit_service().check_credits(user_id) == 49
    await container.rollout_storage().router().close()
    status = await container.rollout().get_status()
    assert status.differences == {"get_or_create_account": 1}
    for _ in range(3):
        await container.credit_service().deduct_credit(user_id)
    await container.rollout_storage().router().close()
    assert (await container.rollout().get_status()).differences == {"get_or_create_account": 1}
    assert (await container.rollout().get_status()).compared == 4


async def test_everybody_comes_back_without_the_database(begin: Begin, server: OwnPostgres) -> None:
    """With PostgreSQL killed, `back` returns all with what they had, and lists whose change is in doubt."""
    container = await begin(server.url, 100, works=True)
    await spend(container, 3)
    await container.consent_service().create_consent(USERS[1], UserConsentCreate(marketing_consent=True))
    await container.rollout_storage().router().close()
    with server.frozen():
        with pytest.raises(StorageUnavailableError):
            await container.credit_service().deduct_credit(USERS[0])
        await container.rollout_storage().router().close()
    server.kill()
    async with asyncio.timeout(5):
        await container.rollout().back()
    status = await container.rollout().get_status()
    assert (status.postgres.users, status.memory.users) == (0, len(USERS))
    assert [one.user_id for one in status.unmirrored] == [USERS[0]]
    assert set((await balances(container)).values()) == {47}
    await spend(container)
    consent = await container.consent_service().get_consent(USERS[1])
    assert consent is not None
    assert consent.marketing_consent

    server.start()
    container.rollout().set(100)
    await until_moved(container)
    assert (await container.rollout().get_status()).unmirrored == []
    assert set((await balances(container)).values()) == {46}
    report = await container.ledger_audit().verify()
    assert report is not None
    assert report.drifting_accounts == 0


async def test_who_is_in_memory_does_not_need_the_database(begin: Begin, server: OwnPostgres) -> None:
    """With PostgreSQL hanging, those who were not moved are served as ever; a dial that is turned up moves nobody."""
    container = await begin(server.url)
    await spend(container)
    with server.frozen():
        async with asyncio.timeout(1):
            await spend(container)
        container.rollout().set(100)
        await spend(container)
    assert (await container.rollout().get_status()).memory.users == len(USERS)
    assert set((await balances(container)).values()) == {47}


async def test_a_restart_keeps_who_was_moved(begin: Begin, database_url: str) -> None:
    """A new process finds those who are in PostgreSQL, wherever the dial is, and moves them by it."""
    first = await begin(database_url, 50)
    await spend(first)
    await first.rollout_storage().router().close()
    async with first.rollout().running():
        pass
    moved = [user_id for user_id in USERS if Assignment(50).get_storage(user_id) is Storage.POSTGRES]
    second = await begin(database_url, 0)
    assert second.rollout_storage().placement().in_postgres == set(moved)
    assert [await second.credit_service().check_credits(user_id) for user_id in moved] == [49] * len(moved)
    assert second.rollout_storage().placement().in_postgres == set()


async def test_one_server_at_a_time(begin: Begin, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one says why it does not begin; and neither mode with state in memory takes a second worker."""
    monkeypatch.setattr(controller, "LEASE_PATIENCE_SECONDS", 0.0)
    await begin(database_url)
    with pytest.raises(StartupError, match="Another server runs with STORAGE=rollout"):
        await begin(database_url)
    for storage in (Storage.ROLLOUT, Storage.MEMORY):
        settings = Settings(storage=StorageSettings(storage=storage), server=ServerSettings(workers=2))
        with pytest.raises(StartupError, match=f"STORAGE={storage} keeps state in the memory of one process"):
            run_server(settings, lambda settings: Container(settings=settings))


async def test_a_server_that_was_overtaken_says_so(begin: Begin, database_url: str) -> None:
    """When it could not renew its lease, and another took it; no longer when that one has gone."""
    container = await begin(database_url, works=True)
    assert not (await container.rollout().get_status()).is_overtaken
    taken = "UPDATE leases SET holder = 'another', expires_at = now() + interval '1 hour'"
    for statement, overtaken in ((taken, True), ("UPDATE leases SET expires_at = now()", False)):
        await execute(database_url, statement)
        async with asyncio.timeout(20):
            while (await container.rollout().get_status()).is_overtaken is not overtaken:
                await asyncio.sleep(0.05)


async def test_lists_and_audits_have_everybody(begin: Begin, database_url: str) -> None:
    """Consents come in pages from both sides, each once, also of who moved back; acts of administrators from either."""
    container = await begin(database_url, 100, works=True)
    for user_id in USERS:
        await container.consent_service().create_consent(user_id, UserConsentCreate())
    container.rollout().set(50)
    await until_moved(container)
    found, after = [], None
    while page := await container.consent_service().list_consents(3, after):
        found += [record.user_id for record in page]
        after = page[-1].user_id
    assert found == sorted(USERS)
    for user_id in USERS:
        await container.credit_service().check_credits(user_id)
        await container.adjustment_service().adjust(
            user_id, CreditAdjustment(amount=1, reason="x"), "auth0|admin", user_id
        )
    await asyncio.sleep(1.2)
    looking = AdminAct(actor="auth0|admin", act="read_audit")
    acts = await container.admin_audit_service().read(looking, 100, actor="auth0|admin")
    assert sorted(act.target or "" for act in acts) == sorted(USERS)


async def test_an_erasure_reaches_what_was_left_behind(begin: Begin, database_url: str) -> None:
    """Of somebody who moved back nothing stays in PostgreSQL either, and coming back refills nothing."""
    container = await begin(database_url, 100)
    await spend(container, 5)
    container.rollout().set(0)
    assert set((await balances(container)).values()) == {45}
    receipt = await container.erasure_service().erase(USERS[0], False)
    assert receipt.erased["account"] == 1
    for backend in (
        container.rollout_storage().memory_backend(),
        container.rollout_storage().mirror_backend(),
        container.rollout_storage().postgres_backend(),
    ):
        assert await backend.rows.read([USERS[0]]) == {}
    assert await container.credit_service().check_credits(USERS[0]) == 45


async def test_who_is_erased_twice_at_once_is_let_go(begin: Begin, database_url: str) -> None:
    """Asked for again while it is unfinished, an erasure keeps nobody in PostgreSQL once it is done."""
    container = await begin(database_url)
    await spend(container)
    change = CreditAdjustment(amount=1, reason="x")
    await container.adjustment_service().adjust(USERS[0], change, USERS[1], "key")
    request = ErasureRequest(USERS[0], container.user_hasher()(USERS[0]), False, AskedBy.USER)
    first, again = [await container.erasures().begin(request) for _ in range(2)]
    assert first is not None
    assert first.id == again.id
    while (await container.erasures().advance(first.id)).finished_at is None:
        pass
    container.rollout().set(100)
    await container.rollout().back()
    assert container.rollout_storage().placement().in_postgres == set()
    assert await container.credit_service().check_credits(USERS[1]) == 49


@pytest.fixture
async def server() -> AsyncIterator[OwnPostgres]:
    """A migrated server of a test's own."""
    with own_postgres() as server:
        await migrate.upgrade(normalise_dsn(server.url))
        yield server


async def test_one_who_cannot_be_moved_holds_up_nobody(begin: Begin, database_url: str) -> None:
    """PostgreSQL refuses somebody's row: they stay, are served and counted, and all others move."""
    container = await begin(database_url, works=True)
    await spend(container)
    refusal = "CHECK (user_id <> 'auth0|0') NOT VALID"
    await execute(database_url, f"ALTER TABLE user_credits ADD CONSTRAINT refused {refusal}")
    container.rollout().set(100)
    async with asyncio.timeout(20):
        while len(container.rollout_storage().placement().in_postgres) < len(USERS) - 1:
            await asyncio.sleep(0.02)
    await spend(container)
    status = await container.rollout().get_status()
    assert (status.memory.users, status.to_move) == (1, 1)
    assert status.postgres.moves_failed > 0
    assert set((await balances(container)).values()) == {48}


async def test_the_mirror_is_put_right_without_a_request(begin: Begin, server: OwnPostgres) -> None:
    """Who is listed as unmirrored is so no longer, soon after PostgreSQL can be read again."""
    container = await begin(server.url, 100, works=True)
    await spend(container)
    await container.rollout_storage().router().close()
    with server.frozen():
        with pytest.raises(StorageUnavailableError):
            await container.credit_service().deduct_credit(USERS[0])
        await container.rollout_storage().router().close()
        assert list(container.rollout_storage().placement().unmirrored) == [USERS[0]]
    async with asyncio.timeout(20):
        while container.rollout_storage().placement().unmirrored:
            await asyncio.sleep(0.05)
    account = await container.credit_service().get_user_credits(USERS[0])
    assert container.rollout_storage().placement().is_mirrored(account)


async def test_going_back_does_not_wait_for_work_that_hangs(
    begin: Begin, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody else is back; whoever has something under way follows when it has ended."""
    monkeypatch.setattr(background, "BACK_SECONDS", 0.2)
    container = await begin(database_url, 100, works=True)
    await spend(container)
    async with container.rollout_storage().router().locks.hold(USERS[0]):
        async with asyncio.timeout(5):
            await container.rollout().back()
        assert container.rollout_storage().placement().in_postgres == {USERS[0]}
    async with asyncio.timeout(5):
        while container.rollout_storage().placement().in_postgres:
            await asyncio.sleep(0.02)
    assert set((await balances(container)).values()) == {49}


def test_a_rollout_does_not_begin_without_the_database(database_url: str) -> None:
    """It would not know who was moved, and would give them their credits anew."""
    settings = rollout_settings(database_url)
    database = settings.database.model_copy(update={"start_degraded": True})
    with pytest.raises(ValueError, match="START_DEGRADED must not be set with STORAGE=rollout"):
        Settings(storage=settings.storage, database=database)


async def test_one_person_asks_for_everything_at_once(begin: Begin, database_url: str) -> None:
    """Of 120 debits while the dial turns to and fro, some given up half-way, no more succeed than there are credits."""
    container = await begin(database_url, works=True)
    user_id, service = USERS[0], container.credit_service()
    assert await service.check_credits(user_id) == 50
    debits = [asyncio.create_task(service.deduct_credit(user_id)) for _ in range(120)]
    for number in range(40):
        container.rollout().set(100 * (number % 2))
        debits[number * 3].cancel()
        await asyncio.sleep(0.01)
    results = await asyncio.gather(*debits, return_exceptions=True)
    paid = results.count(True)
    assert 10 <= paid <= 50
    assert {type(result) for result in results} <= {bool, asyncio.CancelledError}
    container.rollout().set(100)
    await until_moved(container)
    assert await service.check_credits(user_id) == 0
    report = await container.ledger_audit().verify()
    assert report is not None
    assert report.drifting_accounts == 0
