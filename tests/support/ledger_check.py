"""Compare the database with acknowledged writes: none is lost, and none happened twice."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from containers import Container
from tests.support.helpers import postgres_settings
from tests.support.load import Heard, Kind, marketing_of, question_of

ACCOUNTS = """
SELECT user_id, available_credits, held_credits,
       (SELECT array_agg(amount ORDER BY id) FROM credit_transactions t WHERE t.user_id = u.user_id) AS amounts,
       (SELECT array_agg(balance_after ORDER BY id) FROM credit_transactions t WHERE t.user_id = u.user_id) AS balances
FROM user_credits u
"""
FRESH = (10, 0, [10], [10])
ASKED_ONCE = (9, 0, [10, -1], [10, 9])

Account = tuple[int, int, list[int], list[int]]


async def accounts(connection: asyncpg.Connection) -> dict[str, Account]:
    """Return, by user id, available and held credits, and amount and balance of each transaction in order."""
    return {row["user_id"]: tuple(row)[1:] for row in await connection.fetch(ACCOUNTS)}


@dataclass(frozen=True, slots=True)
class Books:
    """Lost writes, credits taken twice or held for ever, and accounts that do not add up."""

    lost: list[str]
    doubled: list[str]
    drifting_accounts: int


async def audit_database(url: str, heard: Sequence[Heard], *, with_answers: bool = True) -> Books:
    """Compare the database with every acknowledged write, once no hold is open.

    With `with_answers` each paid answer must be stored too.
    """
    connection = await asyncpg.connect(url)
    container = Container(settings=postgres_settings(url))
    try:
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT count(*) FROM credit_holds"):
                await asyncio.sleep(0.1)
        found = await accounts(connection)
        hashes = {row[0] for row in await connection.fetch("SELECT query_hash FROM query_cache")}
        consents = dict(await connection.fetch("SELECT user_id, marketing_consent FROM user_consents"))
        report = await container.ledger_reconciliation().verify()
        hash_of = container.query_cache_service().generate_query_hash
    finally:
        await container.shutdown()
        await connection.close()
    assert report is not None
    paid = [one for one in heard if one.kind is Kind.NEW and one.charged]
    lost = [one.who for one in paid if found.get(one.who, FRESH) == FRESH]
    lost += [one.who for one in paid if with_answers and hash_of(question_of(one.number)) not in hashes]
    lost += [who for who, may_be in acknowledged_consents(heard).items() if consents.get(who) not in may_be]
    doubled = [who for who, account in found.items() if who.startswith("asks-") and account not in (FRESH, ASKED_ONCE)]
    return Books(lost, doubled, report.drifting_accounts)


def acknowledged_consents(heard: Sequence[Heard]) -> dict[str, set[bool]]:
    """Return each user's possible last marketing decisions: both, if a change was not acknowledged."""
    said = {one.who: {marketing_of(one.number)} for one in heard if one.kind is Kind.CONSENT and one.answered}
    for one in heard:
        if one.kind is Kind.CHANGE and one.who in said:
            changed = {not marketing_of(one.number)}
            said[one.who] = changed if one.answered else said[one.who] | changed
    return said
