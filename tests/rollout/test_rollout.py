"""A rollout on a real PostgreSQL: migrations, comparisons, and an unavailable database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from containers import Container
from shopassist.asgi import run_server
from shopassist.audit.models import AdminAct
from shopassist.audit.routes import AuditQuery, read_entries
from shopassist.cache.models import StoredAnswer
from shopassist.consent.models import UserConsentCreate
from shopassist.credits.models import CreditAdjustment
from shopassist.credits.ports import CreditRequest, Settlement
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.errors import StartupError, StorageUnavailableError
from shopassist.privacy.models import AskedBy, ErasureRequest
from shopassist.rollout import controller
from shopassist.rollout.models import Assignment
from shopassist.settings import ServerSettings, Settings, Storage, StorageSettings
from shopassist.storage.repositories import Repositories
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import execute, postgres_settings

USERS = [f"auth0|{number}" for number in range(20)]
Begin = Callable[..., "asyncio.Future[Container]"]


def rollout_settings(url: str, percent: float = 0, shadow: bool = False) -> Settings:
    """Return the settings of a rollout."""
    storage = StorageSettings(storage=Storage.ROLLOUT, rollout_percent=percent, rollout_shadow=shadow)
    return postgres_settings(url).model_copy(update={"storage": storage})


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Return a function that starts a rollout as a server does."""
    async with AsyncExitStack() as stack:

        async def start_rollout(url: str, percent: float = 0, shadow: bool = False, works: bool = False) -> Container:
            container = Container(settings=rollout_settings(url, percent, shadow))
            stack.push_async_callback(container.shutdown)
            await container.rollout().begin()
            if works:
                await stack.enter_async_context(container.rollout().running())
            return container

        yield start_rollout  # type: ignore[misc]


async def get_balances(container: Container) -> dict[str, int]:
    """Return the available credits by user."""
    return {user_id: await container.credit_service().check_credits(user_id) for user_id in USERS}


async def spend_credits(container: Container, amount: int = 1) -> None:
    """Deduct credits of every user."""
    for user_id in USERS:
        assert await container.credit_service().deduct_credit(user_id, amount=amount)


async def wait_until_migrated(container: Container) -> None:
    """Wait until every user is in the assigned storage."""
    async with asyncio.timeout(20):
        while (await container.rollout().get_status()).to_move:
            await asyncio.sleep(0.02)


async def test_users_migrate_without_a_call(begin: Begin, database_url: str) -> None:
    """At 100 % all rows migrate to PostgreSQL, at 0 % back; open holds migrate too."""
    container = await begin(database_url, works=True)
    await spend_credits(container)
    holds = [CreditRequest(uuid4(), user_id, False, 2) for user_id in USERS]
    for hold in holds:
        assert (await container.credit_ledger().place_hold(hold)).granted
    container.rollout().set(100)
    await wait_until_migrated(container)
    assert (await container.rollout().get_status()).postgres.users == len(USERS)
    for hold in holds[:10]:
        assert await container.credit_ledger().settle(Settlement(hold.operation_id, hold.user_id, "A question"))
    container.rollout().set(0)
    await wait_until_migrated(container)
    status = await container.rollout().get_status()
    assert (status.memory.users, status.postgres.users) == (len(USERS), 0)
    for hold in holds[10:]:
        assert await container.credit_ledger().void(hold.operation_id, hold.user_id)
    assert set((await get_balances(container)).values()) == {47, 49}


async def test_a_paid_answer_is_found_after_migrating(begin: Begin, database_url: str) -> None:
    """A user who migrates after an answer does not pay for it again."""
    container = await begin(database_url)
    answer = StoredAnswer("a" * 64, '{"recommendations_summary": "one"}', container.settings().cache.validity)
    hold = CreditRequest(uuid4(), USERS[0], False)
    await container.credit_ledger().place_hold(hold)
    await container.credit_ledger().settle(Settlement(hold.operation_id, USERS[0], "A question", answer))
    container.rollout().set(100)
    await container.credit_service().check_credits(USERS[0])
    assert container.rollout_storage().placement().get_storage(USERS[0]) is Storage.POSTGRES
    assert (await container.cached_answers().find("a" * 64)).result == {"recommendations_summary": "one"}


async def test_shadowing_counts_and_corrects_a_difference(begin: Begin, database_url: str) -> None:
    """A changed copy in the other storage is counted once, corrected, and equal from then on."""
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


async def test_back_works_without_the_database(begin: Begin, server: PostgresServer) -> None:
    """With PostgreSQL killed, `back` restores all users from memory and lists those with an uncertain change."""
    container = await begin(server.url, 100, works=True)
    await spend_credits(container, 3)
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
    assert set((await get_balances(container)).values()) == {47}
    await spend_credits(container)
    consent = await container.consent_service().get_consent(USERS[1])
    assert consent is not None
    assert consent.marketing_consent

    server.start()
    container.rollout().set(100)
    await wait_until_migrated(container)
    assert (await container.rollout().get_status()).unmirrored == []
    assert set((await get_balances(container)).values()) == {46}
    report = await container.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0


async def test_users_in_memory_do_not_need_the_database(begin: Begin, server: PostgresServer) -> None:
    """With PostgreSQL hanging, users in memory are served as usual, and setting 100 % migrates no user."""
    container = await begin(server.url)
    await spend_credits(container)
    with server.frozen():
        async with asyncio.timeout(1):
            await spend_credits(container)
        container.rollout().set(100)
        await spend_credits(container)
    assert (await container.rollout().get_status()).memory.users == len(USERS)
    assert set((await get_balances(container)).values()) == {47}


async def test_a_restart_finds_migrated_users(begin: Begin, database_url: str) -> None:
    """A new process finds the users in PostgreSQL at any percentage, and migrates them by it."""
    first = await begin(database_url, 50)
    await spend_credits(first)
    await first.rollout_storage().router().close()
    async with first.rollout().running():
        pass
    moved = [user_id for user_id in USERS if Assignment(50).get_storage(user_id) is Storage.POSTGRES]
    second = await begin(database_url, 0)
    assert second.rollout_storage().placement().in_postgres == set(moved)
    assert [await second.credit_service().check_credits(user_id) for user_id in moved] == [49] * len(moved)
    assert second.rollout_storage().placement().in_postgres == set()


async def test_one_server_at_a_time(begin: Begin, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second server names the reason why it does not start; both storages in memory refuse a second worker."""
    monkeypatch.setattr(controller, "LEASE_PATIENCE_SECONDS", 0.0)
    await begin(database_url)
    with pytest.raises(StartupError, match="Another server runs with STORAGE=rollout"):
        await begin(database_url)
    for storage in (Storage.ROLLOUT, Storage.MEMORY):
        settings = Settings(storage=StorageSettings(storage=storage), server=ServerSettings(workers=2))
        with pytest.raises(StartupError, match=f"STORAGE={storage} keeps state in the memory of one process"):
            run_server(settings, lambda settings: Container(settings=settings))


async def test_the_status_tells_of_an_overtaking_server(begin: Begin, database_url: str) -> None:
    """True while another server has the lease, false again once that lease has expired."""
    container = await begin(database_url, works=True)
    assert not (await container.rollout().get_status()).is_overtaken
    taken = "UPDATE leases SET holder = 'another', expires_at = now() + interval '1 hour'"
    for statement, overtaken in ((taken, True), ("UPDATE leases SET expires_at = now()", False)):
        await execute(database_url, statement)
        async with asyncio.timeout(20):
            while (await container.rollout().get_status()).is_overtaken is not overtaken:
                await asyncio.sleep(0.05)


async def test_lists_and_audits_span_both_storages(begin: Begin, database_url: str) -> None:
    """Each consent is listed once, also after migrating back; audit entries come from both storages."""
    container = await begin(database_url, 100, works=True)
    for user_id in USERS:
        await container.consent_service().create_consent(user_id, UserConsentCreate())
    container.rollout().set(50)
    await wait_until_migrated(container)
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
    acts = await read_entries(container.unit_of_work(), AuditQuery(limit=100, actor="auth0|admin"), looking)
    assert sorted(act.target or "" for act in acts) == sorted(USERS)


async def test_an_erasure_includes_rows_left_in_postgresql(begin: Begin, database_url: str) -> None:
    """Rows of a user who migrated back are erased in both storages, and a new account is not refilled."""
    container = await begin(database_url, 100)
    await spend_credits(container, 5)
    container.rollout().set(0)
    assert set((await get_balances(container)).values()) == {45}
    receipt = await container.erasure_service().erase(USERS[0], False)
    assert receipt.erased["account"] == 1
    placement = container.rollout_storage().placement()
    for rows in (placement.memory_rows, placement.postgres_rows):
        assert await rows.read([USERS[0]]) == {}
    assert await container.credit_service().check_credits(USERS[0]) == 45


async def test_a_repeated_erasure_unpins_its_users(begin: Begin, database_url: str) -> None:
    """A second request for an unfinished erasure keeps no user in PostgreSQL once it has finished."""
    container = await begin(database_url)
    await spend_credits(container)
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
async def server() -> AsyncIterator[PostgresServer]:
    """Return a server of its own with a migrated database."""
    with run_postgres() as server:
        await migrate.upgrade(normalise_dsn(server.url))
        yield server


async def test_a_user_who_cannot_migrate_does_not_block_others(begin: Begin, database_url: str) -> None:
    """A user with a refused row stays in memory, is served and counted, and all others migrate."""
    container = await begin(database_url, works=True)
    await spend_credits(container)
    refusal = "CHECK (user_id <> 'auth0|0') NOT VALID"
    await execute(database_url, f"ALTER TABLE user_credits ADD CONSTRAINT refused {refusal}")
    container.rollout().set(100)
    async with asyncio.timeout(20):
        while len(container.rollout_storage().placement().in_postgres) < len(USERS) - 1:
            await asyncio.sleep(0.02)
    await spend_credits(container)
    status = await container.rollout().get_status()
    assert (status.memory.users, status.to_move) == (1, 1)
    assert status.postgres.moves_failed > 0
    assert set((await get_balances(container)).values()) == {48}


async def test_the_mirror_is_refreshed_without_a_call(begin: Begin, server: PostgresServer) -> None:
    """An unmirrored user is mirrored soon after PostgreSQL can be read again."""
    container = await begin(server.url, 100, works=True)
    await spend_credits(container)
    await container.rollout_storage().router().close()
    with server.frozen():
        with pytest.raises(StorageUnavailableError):
            await container.credit_service().deduct_credit(USERS[0])
        await container.rollout_storage().router().close()
        assert list(container.rollout_storage().placement().unmirrored) == [USERS[0]]
    async with asyncio.timeout(20):
        while container.rollout_storage().placement().unmirrored:
            await asyncio.sleep(0.05)
    # The frozen server may still have applied the debit after the mirror was refreshed: the next call finds that.
    await container.credit_service().get_user_credits(USERS[0])
    await container.rollout_storage().router().close()
    account = await container.credit_service().get_user_credits(USERS[0])
    assert container.rollout_storage().placement().memory_rows.has_account(account)


async def test_back_does_not_wait_for_hanging_calls(
    begin: Begin, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other users are back; the user with a call in progress follows when it has ended."""
    monkeypatch.setattr(controller, "BACK_SECONDS", 0.2)
    container = await begin(database_url, 100, works=True)
    await spend_credits(container)
    async with container.rollout_storage().router().hold(USERS[0]):
        async with asyncio.timeout(5):
            await container.rollout().back()
        assert container.rollout_storage().placement().in_postgres == {USERS[0]}
    async with asyncio.timeout(5):
        while container.rollout_storage().placement().in_postgres:
            await asyncio.sleep(0.02)
    assert set((await get_balances(container)).values()) == {49}


def test_a_rollout_does_not_start_without_the_database(database_url: str) -> None:
    """It would not know the users in PostgreSQL, and would give them new credits."""
    settings = rollout_settings(database_url)
    database = settings.database.model_copy(update={"start_degraded": True})
    with pytest.raises(ValueError, match="START_DEGRADED must not be set with STORAGE=rollout"):
        Settings(storage=settings.storage, database=database)


async def test_concurrent_debits_never_exceed_the_credits(begin: Begin, database_url: str) -> None:
    """Of 120 debits during migrations, some cancelled, at most as many succeed as there are credits."""
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
    await wait_until_migrated(container)
    assert await service.check_credits(user_id) == 0
    report = await container.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0


async def test_a_late_call_about_a_user_is_refused(begin: Begin, database_url: str) -> None:
    """A unit of work that begins with another call could use the wrong storage for the user."""
    container = await begin(database_url)

    async def read(work: Repositories) -> None:
        await work.notices.list_published()
        await work.consents.get_consent(USERS[0])

    with pytest.raises(TypeError, match="must name its users"):
        await container.unit_of_work().run(read)
