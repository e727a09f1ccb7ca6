"""`GET /api/user/credits/transactions`."""

import csv
import re
from collections.abc import Callable

import httpx
import pytest

from containers import Container
from shopassist.credits.models import CreditTransaction
from tests.support.helpers import FixedClock

Bearer = Callable[..., dict[str, str]]
GUEST = {"X-Session-ID": "g2wsht"}
PATH = "/api/user/credits/transactions"


def next_of(page: httpx.Response) -> str:
    """Return the URL that the `Link` header leads to, or an empty string."""
    link = re.fullmatch(r'<(.*)>; rel="next"', page.headers.get("Link", ""))
    return str(page.url.join(link[1])) if link else ""


async def test_history_of_the_caller(client: httpx.AsyncClient, container: Container) -> None:
    """The first request of a guest shows the initial credits, and no private column."""
    answer = await client.get(PATH, headers=GUEST)
    [row] = answer.json()
    assert row == {
        "id": row["id"],
        "user_id": "g2wsht",
        "transaction_type": "allocate",
        "amount": 10,
        "timestamp": "2026-01-01T12:00:00Z",
        "description": "Initial credits",
        "balance_after": 10,
    }
    assert "Link" not in answer.headers


async def test_history_is_private(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """401 without identity; a guest session with the id of a registered account is refused."""
    assert (await client.get(PATH)).status_code == 401
    assert [row["amount"] for row in (await client.get(PATH, headers=bearer())).json()] == [50]
    refused = await client.get(PATH, headers={"X-Session-ID": "auth0|123"})
    assert (refused.status_code, refused.json()["error_type"]) == (401, "invalid_session")


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
async def test_pages_keep_the_filters(client: httpx.AsyncClient, container: Container, accept: str) -> None:
    """Following the `Link` header returns each row of the type once, newest first, in JSON and CSV."""
    for amount in (1, 2, 3, 1, 2):
        await container.credit_service().deduct_credit("g2wsht", is_guest=True, amount=amount)
    url, seen, pages = f"{PATH}?limit=2&type=deduct&from=2026-01-01T17:30:00%2B05:30", list[int](), 0
    while url:
        page = await client.get(url, headers={**GUEST, "Accept": accept})
        rows = page.json() if accept == "application/json" else csv.DictReader(page.text.splitlines())
        seen += [int(row["amount"]) for row in rows]
        url, pages = next_of(page), pages + 1
    assert (seen, pages) == ([-2, -1, -3, -2, -1], 3)


async def test_from_is_inclusive_and_to_is_not(
    client: httpx.AsyncClient, container: Container, clock: FixedClock
) -> None:
    """A day's history ends where the next day's begins."""
    await container.credit_service().get_user_credits("g2wsht", is_guest=True)
    clock.move(days=1)
    await container.credit_service().deduct_credit("g2wsht", is_guest=True)
    for query, amounts in (
        ("from=2026-01-02T12:00:00Z", [-1]),
        ("to=2026-01-02T12:00:00Z", [10]),
        ("from=2026-01-01T12:00:00Z&to=2026-01-02T12:00:01Z", [-1, 10]),
        ("from=2026-01-03T12:00:00Z&to=2026-01-01T12:00:00Z", []),
    ):
        assert [row["amount"] for row in (await client.get(f"{PATH}?{query}", headers=GUEST)).json()] == amounts


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "type=gift",
        "from=yesterday",
        "from=2026-01-01T12:00:00",
        "from=0001-01-01T00:00:00%2B14:00",
        "to=9999-12-31T23:59:59-14:00",
        "to=99999999999999999999",
        "cursor=!!",
        "cursor=%00",
        "cursor=YWJj",
        "cursor=LTE",
        "cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk",
    ],
)
async def test_invalid_filters_are_422(client: httpx.AsyncClient, query: str) -> None:
    """Invalid limits, types, instants without an offset, and unknown cursors."""
    assert (await client.get(f"{PATH}?{query}", headers=GUEST)).status_code == 422


async def test_csv_contains_no_formulas(client: httpx.AsyncClient, container: Container) -> None:
    """Formulas become text, amounts stay numbers, quotes and line breaks are escaped."""
    user_id = "=cmd('calc')"
    texts = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", 'a "quote", and\na line']
    await container.credit_service().get_user_credits(user_id, is_guest=True)
    async with container.unit_of_work()() as work:
        for text in texts:
            await work.credits.create_transaction(
                CreditTransaction(
                    user_id=user_id, transaction_type="adjust", amount=-1, balance_after=1, description=text
                )
            )
    answer = await client.get(PATH, headers={"X-Session-ID": user_id, "Accept": "text/csv"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="credit-transactions.csv"'
    rows = list(csv.DictReader(answer.text.splitlines(keepends=True)))
    assert set(rows[0]) == {
        "id", "user_id", "transaction_type", "amount", "timestamp", "description", "balance_after"
    }  # fmt: skip
    assert [row["description"] for row in reversed(rows[:6])] == [*("'" + text for text in texts[:5]), texts[5]]
    assert {row["user_id"] for row in rows} == {"'" + user_id}
    assert rows[0]["amount"] == "-1"
    assert rows[0]["timestamp"].endswith("+00:00")


async def test_json_unless_csv_is_preferred(client: httpx.AsyncClient) -> None:
    """A client that accepts anything gets JSON."""
    for accept in ("*/*", "application/json, text/csv;q=0.5", "text/html"):
        answer = await client.get(PATH, headers={**GUEST, "Accept": accept})
        assert answer.headers["Content-Type"] == "application/json"
        assert "Accept" in answer.headers["Vary"]
