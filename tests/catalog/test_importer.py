"""Import of catalogue files: formats, guesses and rejected rows."""

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest

from shopassist.catalog.importer.importer import ImportOptions, plan_import
from shopassist.catalog.models import Product
from shopassist.errors import InvalidInputError
from tests.support.catalog_files import Shop, row

TEXT_BREAKERS = ["nul \x00", "lone \ud800 surrogate"]

CSV = "sku;name;manufacturer;price;url;ram gb\n7;Phone;Acme;₹11,999;https://x.example/7;8\n"
RECORD = (
    '{"sku": 7, "name": "Phone", "manufacturer": "Acme", "price": "₹11,999", "url": "https://x.example/7", "ramGb": 8}'
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV.encode("utf-8-sig")),
        ("a.tsv", CSV.replace(";", "\t")),
        ("a.csv.gz", gzip.compress(CSV.encode())),
        ("a", gzip.compress(CSV.encode())),
        ("a.jsonl", f"{RECORD}\n\n"),
        ("a", f"{RECORD}\n{RECORD}\n"),
        ("a.json", f"[{RECORD}]"),
        ("a.json.gz", gzip.compress(f'{{"total": 1, "products": [{RECORD}]}}'.encode())),
    ],
)
async def test_formats_give_the_same_product(shop: Shop, name: str, content: str | bytes) -> None:
    """CSV (any delimiter, byte order mark), JSON lines and JSON, compressed or not, give the same product."""
    report = await shop.take(shop.file(name, content))
    assert (report.inserted, report.rejected) == (1, 0)
    taken = shop.product("7")
    assert (taken.source, taken.title, taken.brand, taken.link) == ("a", "Phone", "Acme", "https://x.example/7")
    assert (taken.price, taken.currency, taken.attributes) == (Decimal("11999.00"), "INR", {"ram_gb": 8})


async def test_second_import_changes_nothing(shop: Shop) -> None:
    """A second import leaves rows unchanged, updates changed rows, and counts a key twice in a batch as repeated."""
    path = shop.file("a.jsonl", [row(1), row(2)])
    assert (await shop.take(path)).inserted == 2
    assert (await shop.take(path)).unchanged == 2
    report = await shop.take(shop.file("a.jsonl", [row(1, price="8"), row(2), row(3), row(3, title="Last")]))
    assert (report.updated, report.unchanged, report.inserted, report.repeated) == (1, 1, 1, 1)
    assert shop.product("3").title == "Last"


BAD_LINES = [
    ("{broken", "not JSON"),
    ("[1]", "not a JSON object"),
    (json.dumps(row(price="NaN")), "price"),
    ('{"id": 1, "title": "t", "price": NaN}', "finite"),
    ('{"id": 1, "title": "t", "price": 1e400}', "finite"),
    ('{"id": 1, "title": "t", "weight": Infinity}', "finite"),
    (json.dumps(row(title="  ")), "title is empty"),
    (json.dumps(row(title=["t"])), "title is no text"),
    (json.dumps(row(title="t" * 1001)), "longer than 1,000"),
    (json.dumps(row(id=None)), "id"),
    (json.dumps(row(price=5, currency=None)), "no currency"),
    (json.dumps(row(currency="quids")), "currency"),
    *((json.dumps(row(title=text)), "must not contain") for text in TEXT_BREAKERS),
    *((json.dumps(row(spec=text)), "must not contain") for text in TEXT_BREAKERS),
    ('{"id": 1, "title": ' + "[" * 100_000, "not JSON"),
    ("x" * (1 << 20) + "y", "longer than"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason for _, reason in BAD_LINES])
async def test_bad_row_is_rejected_with_a_reason(shop: Shop, line: str, reason: str) -> None:
    """A bad row is counted and written to the reject file; the other rows are stored."""
    path = shop.file(
        "a.jsonl",
        "\n".join([json.dumps(row(8, link="", rating=4, price_as_of="2025-01-02")), line, json.dumps(row(9))]),
    )
    report = await shop.take(path)
    assert (report.read, report.inserted, report.rejected) == (3, 2, 1)
    [reject] = shop.rejects(path)
    assert reject["line"] == 2
    assert reason in reject["reason"]


UNUSABLE_FIELDS = [
    *(("rating", value) for value in (5.1, "NaN", "|", "none yet", [4])),
    *(("link", value) for value in ("javascript:alert(1)", "https://", "/relative", "shop page")),
    *(("rating_count", value) for value in ("many", -1, "1e99")),
    ("price_as_of", "yesterday"),
]


@pytest.mark.parametrize(("name", "value"), UNUSABLE_FIELDS)
async def test_unusable_optional_field_is_left_out(shop: Shop, name: str, value: Any) -> None:
    """The row is taken without the field, which is counted."""
    usable = {"rating": 4, "link": "https://x.example", "rating_count": 3, "price_as_of": "2025-01-02"}
    report = await shop.take(shop.file("a.jsonl", [row(1, **usable), row(2, **usable | {name: value})]))
    assert (report.inserted, report.dropped) == (2, {name: 1})
    assert getattr(shop.product("2"), name) in {None, "https://www.amazon.com/s?k=Thing+2"}
    assert getattr(shop.product("1"), name) is not None


async def test_bad_csv_rows_are_rejected(shop: Shop) -> None:
    """Rows with too many cells, another encoding than most, or an open quote are rejected with their line."""
    good = "id,title,price\n1,Café,$5\n2,Thé,$5\n".encode()
    path = shop.file("a.csv", good + b'3,Caf\xe9,$5\n4,Four,$5,extra\n5,Five,$6\n6,"Six,$5\n7,Seven,$5\n')
    report = await shop.take(path)
    assert (report.read, report.inserted, report.rejected) == (7, 4, 3)
    assert [reject["line"] for reject in shop.rejects(path)] == [4, 5, 7]


async def test_reject_file_of_an_earlier_import_is_deleted(shop: Shop) -> None:
    """An import without rejected rows leaves no reject file. The file can be placed elsewhere."""
    path = shop.file("a.jsonl", [row(1), row(2, title="")])
    await shop.take(path)
    elsewhere = shop.folder / "elsewhere.jsonl"
    await shop.take(path, rejects=elsewhere)
    assert len(elsewhere.read_text().splitlines()) == 1
    await shop.take(shop.file("a.jsonl", [row(1)]))
    assert not path.with_name("a.jsonl.rejects.jsonl").exists()


async def test_prices_without_a_currency_stop_the_import(shop: Shop) -> None:
    """The import fails before the first row; an option, a column or a sign is enough."""
    rows = [{"id": 1, "title": "t", "price": 5}]
    path = shop.file("a.jsonl", rows)
    with pytest.raises(InvalidInputError, match="name no currency: say --currency"):
        await shop.take(path)
    assert not shop.store.table(Product)
    assert (await shop.take(path, currency="eur")).inserted == 1
    assert shop.product("1").currency == "EUR"


async def test_columns_can_be_mapped(shop: Shop) -> None:
    """A mapping replaces the guess; unknown fields and columns are named."""
    path = shop.file("a.csv", "id,name,label,price,mrp\n1,n,l,$1,$2\n")
    await shop.take(path, columns={"title": "label", "price": "mrp"})
    assert (shop.product("1").title, shop.product("1").price) == ("l", Decimal("2.00"))
    with pytest.raises(InvalidInputError, match="no field 'titel'"):
        plan_import(path, ImportOptions(columns={"titel": "label"}))
    with pytest.raises(InvalidInputError, match="no column 'x'"):
        plan_import(path, ImportOptions(columns={"title": "x"}))


def test_plan_is_described(shop: Shop) -> None:
    """The plan lists each field with its column and the assumptions."""
    path = shop.file("a.jsonl", [{"id": 1, "title": "t", "price": 5, "supplier": "s", "short_description": "d",
                                  "img_500x500": "http://x/y", "attr_n_weight": 1.0}])  # fmt: skip
    shown = {name: (column, remark) for name, column, remark in plan_import(path).description}
    assert shown["brand"] == ("supplier", "")
    assert shown["price"] == ("price", "in minor units, as in the ICEcat open catalogue shape")
    assert "USD" in shown["currency"][1]
    assert "store" in shown["link"][1]


async def test_truncated_file(shop: Shop) -> None:
    """Complete rows are stored, and the error tells their number."""
    whole = gzip.compress("\n".join(json.dumps(row(n, note=f"{n * 7919}")) for n in range(20_000)).encode())
    path = shop.file("a.jsonl.gz", whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match=r"is cut off.* The [\d,]+ good rows before that were taken"):
        await shop.take(path)
    assert 1000 < len(shop.store.table(Product)) < 20_000
    with pytest.raises(InvalidInputError, match="No row was taken"):
        await shop.take(shop.file("b.jsonl.gz", whole[:100]))


NO_FILES = [("a.csv", b""), ("a.json", b"{}"), ("a.json", b"[1"), ("a.json", b"\xff"), ("a.jsonl", b"\n")]


@pytest.mark.parametrize(("name", "content"), [*NO_FILES, ("a.gz", b"\x1f\x8bx"), ("a.csv.gz", b"\x1f\x8bx")])
async def test_unreadable_files(shop: Shop, name: str, content: bytes) -> None:
    """A file that cannot be read gives one sentence, no traceback."""
    with pytest.raises(InvalidInputError):
        await shop.take(shop.file(name, content))
    with pytest.raises(InvalidInputError):
        plan_import(shop.folder / "missing.csv")
