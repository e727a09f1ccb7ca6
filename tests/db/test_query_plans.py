"""Every statement of a repository is served by an index: none reads a large table from end to end."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import event

from containers import Container
from shopassist.audit.models import AdminAct
from shopassist.cache.models import QueryCache, StoredAnswer
from shopassist.catalog.models import Bound, Criteria, Feature
from shopassist.consent.models import ConsentEvent, ConsentSubject, UserConsent
from shopassist.credits.models import CreditTransaction, TransactionType
from shopassist.credits.ports import Adjustment, CreditRequest, HistoryFilter, Settlement
from shopassist.privacy.models import AskedBy, ErasureListEntry, ErasureRequest
from shopassist.privacy.personal_data import PERSONAL_DATA_TABLES
from shopassist.storage.repositories import Repositories
from tests.support.helpers import execute, postgres_settings, replace_database_name

FILL = """
INSERT INTO user_credits (user_id, is_guest, available_credits, held_credits, max_credits, last_reset_timestamp)
SELECT 'user ' || n, n % 3 = 0, 40, 1, 50, now() - (n % 1000) * interval '80 seconds' FROM generate_series(1, 20000) n;
INSERT INTO credit_transactions (user_id, transaction_type, amount, "timestamp", balance_after)
SELECT 'user ' || n % 20000, 'allocate', 1, now() - (200000 - n) * interval '1 minute', 1
FROM generate_series(1, 200000) n;
INSERT INTO credit_holds (hold_id, user_id, amount, created_at, expires_at)
SELECT gen_random_uuid(), 'user ' || n, 1, now(), now() + n * interval '1 second' FROM generate_series(1, 20000) n;
INSERT INTO idempotent_answers (user_id, idempotency_key, request_hash, response, expires_at)
SELECT 'user ' || n, 'key', 'hash', '{}', now() + (n - 1000) * interval '1 second' FROM generate_series(1, 20000) n;
INSERT INTO user_consents (user_id, terms_accepted, marketing_consent)
SELECT 'user ' || n, true, false FROM generate_series(1, 20000) n;
INSERT INTO consent_notices (purpose, version, locale, sha256, "text", binding_from)
SELECT 'terms', n, 'en', encode(sha256(convert_to('text ' || n, 'UTF8')), 'hex'), 'text ' || n, now()
FROM generate_series(1, 5) n;
INSERT INTO consent_events (user_id, is_guest, purpose, granted, notice_id, source)
SELECT 'user ' || n % 10000, n % 3 = 0, (ARRAY['terms', 'marketing'])[1 + n % 2], n % 5 > 0, 1 + n % 5, 'consents'
FROM generate_series(1, 40000) n;
INSERT INTO admin_audit (actor, act, target)
SELECT 'admin ' || n % 7, 'adjust_credits', 'user ' || n % 10000 FROM generate_series(1, 40000) n;
INSERT INTO query_cache (query_hash, result, cached_at, expires_at)
SELECT md5(n::text) || md5(n::text), '{}', now() - interval '2 days', now() + (n - 1000) * interval '1 second'
FROM generate_series(1, 20000) n;
INSERT INTO erasures (id, subject_hash, is_guest, had_account, asked_by, requested_at, finished_at, counts)
SELECT gen_random_uuid(), md5(n::text) || md5(n::text), true, true, 'user', now() - n * interval '1 minute', now(), '{}'
FROM generate_series(1, 20000) n;
INSERT INTO erased_balances (subject_hash, is_guest, available_credits, last_reset_timestamp, forget_at)
SELECT md5(n::text) || md5(n::text), true, 3, now(), now() + (n - 1000) * interval '1 minute'
FROM generate_series(1, 20000) n;
INSERT INTO guest_merges (guest_id, user_id, merged_at, moved)
SELECT 'guest ' || n, 'user ' || n, now(), '{}' FROM generate_series(1, 20000) n;
INSERT INTO products (source, source_id, title, brand, category, attributes, link, words, price, currency, rating)
SELECT 'test', n, 'Phone model' || n, 'Brand' || n % 500, 'category' || n % 200, jsonb_build_object('ram_gb', n % 16),
       'https://www.example.in/', ARRAY['phone', 'model' || n, 'feature' || n % 300], 1000 + n, 'INR', n % 5
FROM generate_series(1, 20000) n;
INSERT INTO guest_networks (day, network, accounts)
SELECT CURRENT_DATE - n % 2, md5(n::text), 3 FROM generate_series(1, 20000) n;
"""


class Undo(Exception):  # noqa: N818 - it is no error
    """Raised to roll a unit of work back."""


Statement = tuple[str, tuple[Any, ...]]
Steps = Callable[[Container, Repositories], Awaitable[object]]


SUBJECT = ConsentSubject("user 7", is_guest=False)
EVENT = ConsentEvent(user_id="user 7", is_guest=False, purpose="terms", granted=False, source="consents")


def step(name: str, steps: Steps) -> Any:
    """Register a use of a repository or of the ledger."""
    return pytest.param(steps, id=name)


async def merged(work: Repositories, guest_id: str, user_id: str) -> None:
    """Execute all statements of a merge."""
    await work.guest_merges.lock(guest_id, user_id)
    await work.guest_merges.find_merge(guest_id)
    await work.guest_merges.move_answers(guest_id, user_id)
    await work.guest_merges.insert_merge("another guest", user_id, {})


async def exported(container: Container) -> None:
    """Read a page of each kind, and the next one."""
    for one in PERSONAL_DATA_TABLES:
        key = {"id": 100, "hold_id": UUID(int=0)}
        after = tuple(key.get(column.name, "user 7") for column in one.sql_table.primary_key)
        for place in (None, after if len(after) > 1 else after[0]):
            await container.personal_data().read_page(one, "user 7", False, 100, place)


async def erased(container: Container) -> None:
    """Execute all statements of an erasure."""
    subject = container.user_hasher()("user 11")
    begun = await container.erasures().begin(ErasureRequest("user 11", subject, None, AskedBy.USER))
    assert begun is not None
    await container.erasures().advance(begun.id)


STEPS = [
    step("account", lambda c, _: c.credit_ledger().get_or_create_account("user 7", is_guest=False)),
    step("first sight", lambda c, _: c.credit_ledger().get_or_create_account("new", is_guest=False)),
    step("deduct", lambda c, _: c.credit_ledger().deduct("user 7", False, 1, "x")),
    step(
        "hold",
        lambda c, _: c.credit_ledger().place_hold(CreditRequest(uuid4(), "user 7", is_guest=False, question_hash="q")),
    ),
    step(
        "settle",
        lambda c, _: c.credit_ledger().settle(
            Settlement(uuid4(), "user 7", "x", StoredAnswer("0" * 64, "{}", timedelta(minutes=1)))
        ),
    ),
    step("void", lambda c, _: c.credit_ledger().void(uuid4(), "user 7")),
    step("open holds", lambda c, _: c.credit_ledger().list_open_holds("user 7", "q", "key")),
    step("adjust", lambda c, _: c.credit_ledger().adjust(Adjustment(uuid4(), "user 7", 5, "x", "admin", "key"))),
    step("replay", lambda c, _: c.replays().get("user 7", "key")),
    step("forget", lambda c, _: c.replays().delete_expired()),
    step("find answer", lambda c, _: c.cached_answers().find("0" * 64)),
    step("void expired", lambda c, _: c.credit_ledger().void_expired()),
    step("reset", lambda c, _: c.credit_ledger().reset("user 7")),
    step("reset due", lambda c, _: c.credit_ledger().reset_due_accounts(100)),
    step("register", lambda c, _: c.credit_ledger().register_guest("user 9")),
    step("credits", lambda _, w: w.credits.get_user_credits("user 7")),
    step("update credits", lambda _, w: w.credits.update_user_credits("user 7", max_credits=60)),
    step(
        "transaction",
        lambda _, w: w.credits.create_transaction(
            CreditTransaction(user_id="user 7", transaction_type="allocate", amount=1, balance_after=1)
        ),
    ),
    step("history", lambda _, w: w.credits.get_user_transactions("user 7", 10, before_id=100_000)),
    step("retention", lambda _, w: w.credits.cleanup_old_transactions(days=135)),
    step("fold", lambda _, w: w.credits.compact_transactions(135, after_id=2000)),
    step(
        "filtered history",
        lambda _, w: w.credits.get_user_transactions(
            "user 7",
            10,
            before_id=100_000,
            filter_=HistoryFilter(TransactionType.DEDUCT, datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)),
        ),
    ),
    step("merge", lambda _, w: merged(w, "guest 9", "user 9")),
    step("forget erased", lambda c, _: c.erasures().delete_expired(100)),
    step(
        "list of erasures",
        lambda c, _: c.erasures().list_erasures(100, ErasureListEntry(UUID(int=0), "", datetime.now(UTC))),
    ),
    step("erasures under way", lambda c, _: c.erasures().list_unfinished()),
    step("consent", lambda _, w: w.consents.get_consent("user 7")),
    step("new consent", lambda _, w: w.consents.create_consent(UserConsent(user_id="new"))),
    step("update consent", lambda _, w: w.consents.update_consent("user 7", marketing_consent=True)),
    step("consents", lambda _, w: w.consents.list_consents(100, after_user_id="user 5")),
    step("consent state", lambda _, w: w.consent_history.get_latest_events(SUBJECT)),
    step("consent history", lambda _, w: w.consent_history.list_events(SUBJECT, 50, before_id=30_000)),
    step("consent lock", lambda _, w: w.consent_history.lock(SUBJECT)),
    step("consent event", lambda _, w: w.consent_history.insert_events([EVENT])),
    step("acts", lambda _, w: w.admin_audit.page(50, before_id=30_000)),
    step("acts by", lambda _, w: w.admin_audit.page(50, before_id=30_000, actor="admin 3")),
    step("acts about", lambda _, w: w.admin_audit.page(50, before_id=30_000, target="user 7")),
    step("act", lambda _, w: w.admin_audit.record(AdminAct(actor="a", act="x"))),
    step("cached", lambda _, w: w.cache.get_cached_result("0" * 64)),
    step(
        "store",
        lambda _, w: w.cache.cache_result(
            QueryCache.model_validate(
                {
                    "query_hash": "0" * 64,
                    "result": {},
                    "cached_at": "2026-01-01T00:00Z",
                    "expires_at": "2027-01-01T00:00Z",
                }
            )
        ),
    ),
    step("expired cache", lambda _, w: w.cache.cleanup_expired_cache()),
    step("search by term", lambda _, w: w.catalog.search(Criteria(terms=("model77",)))),
    step("search by wish", lambda _, w: w.catalog.search(Criteria(preferences=("model77",)))),
    step("search by brand", lambda _, w: w.catalog.search(Criteria(brands=("brand7",)))),
    step("search by category", lambda _, w: w.catalog.search(Criteria(categories=("category7",)))),
    step(
        "search by category, memory and price",
        lambda _, w: w.catalog.search(
            Criteria(
                categories=("category7",),
                bounds=(Bound(name="ram_gb", minimum=Decimal(8)),),
                price_max=Decimal(12000),
                currency="INR",
            )
        ),
    ),
    step(
        "search by feature",
        lambda _, w: w.catalog.search(Criteria(features=(Feature(name="f", wordings=("feature7",)),))),
    ),
    step("search by price", lambda _, w: w.catalog.search(Criteria(price_max=Decimal(1100), currency="INR"))),
    step("vocabulary", lambda _, w: w.catalog.get_vocabulary()),
]


@pytest.fixture(scope="module")
async def filled(server_url: str, template_url: str) -> AsyncIterator[Container]:
    """Build a container over a database with 20,000 rows or more in every table."""
    url = replace_database_name(server_url, "filled")
    await execute(server_url, f"CREATE DATABASE filled TEMPLATE {template_url.rpartition('/')[2]}")
    await execute(url, FILL)
    await execute(url, "VACUUM (ANALYZE)")
    container = Container(settings=postgres_settings(url))
    yield container
    await container.shutdown()
    await execute(server_url, "DROP DATABASE filled WITH (FORCE)")


async def executed(container: Container, steps: Steps) -> list[Statement]:
    """Return the statements that the steps execute; their changes are rolled back where possible."""
    statements: list[Statement] = []

    def note(_: object, __: object, statement: str, parameters: tuple[Any, ...], *___: object) -> None:
        statements.append((statement, tuple(parameters)))

    def note_of_driver(query: Any) -> None:
        # What it asks for when it meets a type for the first time is asyncpg's own.
        if "typeinfo_tree" not in query.query and "current_setting('jit')" not in query.query:
            statements.append((query.query, tuple(query.args)))

    manager = container.database_manager()
    engine = manager.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    # A hot connection is kept by the manager: the steps get theirs from the same place.
    async with manager.direct_pool.acquire() as pooled:
        pooled.driver.add_query_logger(note_of_driver)
    try:
        async with container.unit_of_work()() as work:
            await steps(container, work)
            raise Undo  # noqa: TRY301 - leaving the block is the point
    except Undo:
        pass
    finally:
        event.remove(engine, "before_cursor_execute", note)
        async with manager.direct_pool.acquire() as pooled:
            pooled.driver.remove_query_logger(note_of_driver)
    return statements


def scans(plan: Any) -> list[str]:
    """Return the tables that a plan reads from end to end."""
    if isinstance(plan, list):
        return [table for part in plan for table in scans(part)]
    if not isinstance(plan, dict):
        return []
    own = [plan["Relation Name"]] if plan.get("Node Type") == "Seq Scan" else []
    return own + [table for part in plan.values() for table in scans(part)]


async def plans(container: Container, statements: Sequence[Statement]) -> list[Any]:
    """Yield PostgreSQL's plan for each statement with its parameters."""
    url = container.database_manager().url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    try:
        return [
            json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *parameters))
            for statement, parameters in statements
        ]
    finally:
        await connection.close()


@pytest.mark.parametrize("steps", STEPS)
async def test_no_statement_reads_a_large_table_from_end_to_end(filled: Container, steps: Steps) -> None:
    """The planner finds an index for each, at the sizes where that matters."""
    statements = await executed(filled, steps)
    assert statements
    for (statement, _), plan in zip(statements, await plans(filled, statements), strict=True):
        assert scans(plan) == [], statement


@pytest.mark.parametrize("steps", [step("export", lambda c, _: exported(c)), step("erase", lambda c, _: erased(c))])
async def test_export_and_erasure_read_what_is_the_users(filled: Container, steps: Steps) -> None:
    """Of all but the open holds, which are few: they live for a minute."""
    statements = await executed(filled, steps)
    for (statement, _), plan in zip(statements, await plans(filled, statements), strict=True):
        assert set(scans(plan)) <= {"credit_holds"}, statement


async def test_a_page_of_verification_reads_its_own_range(filled: Container) -> None:
    """Of accounts and ledger; the open holds are few, since none outlives a minute, and read as a whole."""
    statements = await executed(filled, lambda c, _: c.audit().reconcile_page("user 12", limit=500))
    assert [scans(plan) for plan in await plans(filled, statements)] == [[], ["credit_holds"]]


async def test_an_agreement_is_read_by_its_key(filled: Container) -> None:
    """The newest event alone, with its notice; the notices are few, and read as a whole at most."""
    statements = await executed(filled, lambda c, _: c.consent_lookup().get_latest_decision(SUBJECT, "terms"))
    assert len(statements) == 1
    [plan] = await plans(filled, statements)
    assert {*scans(plan)} <= {"consent_notices"}
    assert '"Index Name": "ix_consent_events_user_id_is_guest_purpose_id"' in json.dumps(plan)


@pytest.mark.parametrize("wanted", [HistoryFilter(), HistoryFilter(TransactionType.DEDUCT, datetime.now(UTC))])
async def test_a_page_of_history_is_read_by_user_and_cursor(filled: Container, wanted: HistoryFilter) -> None:
    """It uses (user_id, id) for all filters, and never the date, which would read all users' rows."""
    statements = await executed(filled, lambda _, w: w.credits.get_user_transactions("user 7", 50, 100_000, wanted))
    [plan] = await plans(filled, statements)
    assert '"Index Name": "ix_credit_transactions_user_id_id"' in json.dumps(plan)
