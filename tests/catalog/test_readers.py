"""Reading of files: dialects, encodings, archives, spreadsheets, and damage that costs as little as possible."""

import gzip
import io
import json
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest
from openpyxl import Workbook

from shopassist.catalog.importer.importer import ImportOptions, check_plan, plan_import
from shopassist.catalog.importer.readers import CatalogFile
from shopassist.catalog.models import Product
from shopassist.errors import InvalidInputError
from tests.support.catalog_files import Shop

TABLE = "id,title,price\n1,Café,5 EUR\n2,Thé,6 EUR\n"


def pack_zip(**members: str) -> bytes:
    """Return a zip archive of these files; the first underscore of a name is its dot."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", ".", 1), content)
    return packed.getvalue()


def pack_tar(*names: str, mode: str = "w:gz") -> bytes:
    """Return a tar archive that holds the table under each of these names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(TABLE.encode())
            archive.addfile(entry, io.BytesIO(TABLE.encode()))
    return packed.getvalue()


def write_sheet() -> bytes:
    """Return a workbook with an empty sheet, and the table below a title on the second."""
    book = Workbook()
    sheet = book.create_sheet("Products")
    for cells in (
        ["Our products"],
        [],
        ["id", "title", "price", "Weight (kg)", None],
        [1, "Café", "5 EUR", 2.0],
        [2.0, "Thé", "6 EUR"],
    ):
        sheet.append(cells)
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


SAME_TABLES = {
    "utf-8": TABLE.encode(),
    "mark": TABLE.encode("utf-8-sig"),
    "utf-16": TABLE.encode("utf-16"),
    "utf-16-be": b"\xfe\xff" + TABLE.encode("utf-16-be"),
    "windows": TABLE.encode("cp1252"),
    "old mac": TABLE.replace("\n", "\r").encode(),
    "windows lines": TABLE.replace("\n", "\r\n").encode(),
    "no last line end": TABLE.rstrip().encode(),
    "semicolons": TABLE.replace(",", ";").encode(),
    "tabs": TABLE.replace(",", "\t").encode(),
    "pipes": TABLE.replace(",", "|").encode(),
    "sep line": b"sep=;\r\n" + TABLE.replace(",", ";").encode(),
    "odd separator": b"sep=^\n" + TABLE.replace(",", "^").encode(),
    "quoted sep line": b'"sep=|"\n' + TABLE.replace(",", "|").encode(),
    "blank lines": b"\n\n  \n" + TABLE.replace("\n", "\n\n").encode(),
    "comments": b"# exported, by, us\n#\n" + TABLE.encode() + b"# the end\n",
    "preamble": b"Products of 2024\n" + TABLE.encode(),
    "line break in heading": TABLE.replace("price", '"price\n(EUR)"').replace(" EUR", "").encode(),
    "spaces": TABLE.replace(",", ' , "').replace("\n", '"\n').replace('"\n', "\n").replace(' "', " ").encode(),
    "single quotes": "'id','title','price'\n'1','Café','5 EUR'\n'2','Thé','6 EUR'\n".encode(),
    "empty columns": TABLE.replace("\n", ",,\n").encode(),
    "gzip": gzip.compress(TABLE.encode()),
    "zip": pack_zip(a_csv=TABLE),
    "zip with hidden": pack_zip(a_csv=TABLE, __MACOSX="x"),
    "tar.gz": pack_tar("a.csv"),
    "tar.gz with hidden": pack_tar("./a.csv", "./._a.csv"),
    "tar": pack_tar("a.csv", mode="w"),
    "gzip of utf-16": gzip.compress(TABLE.encode("utf-16")),
    "xlsx": write_sheet(),
    "json lines of utf-16": '{"id":1,"title":"Café","price":"5 EUR"}\n{"id":2,"title":"Thé","price":"6 EUR"}'.encode("utf-16"),
    "json of windows": '[{"id":1,"title":"Café","price":"5 EUR"},\n{"id":2,"title":"Thé","price":"6 EUR"}]'.encode("cp1252"),
    "xml of windows": "<p><i><id>1</id><title>Café</title><price>5 EUR</price></i>\n<i><id>2</id><title>Thé</title>"
    "<price>6 EUR</price></i></p>".encode("cp1252"),
    "xml that states it": '<?xml version="1.0" encoding="ISO-8859-1"?><p><i id="1"><title>Café</title><price>5 EUR</price></i>'
    '<i id="2"><title>Thé</title><price>6 EUR</price></i></p>'.encode("latin-1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME_TABLES)
async def test_content_tells_how_to_read(shop: Shop, kind: str) -> None:
    """Whatever its name, a table gives the same products, and every row is counted."""
    report = await shop.take(shop.file("catalogue.dat", SAME_TABLES[kind]))
    assert (report.read, report.inserted) == (2, 2)
    products = [(p.source_id, p.title, p.price, p.currency) for p in shop.store.table(Product).values()]
    assert products == [("1", "Café", Decimal(5), "EUR"), ("2", "Thé", Decimal(6), "EUR")]


REFUSED = [
    (pack_zip(a_csv=TABLE, b_csv=TABLE), "holds 2 files \\(a.csv, b.csv\\)"),
    (pack_zip(), "is damaged|holds no"),
    (pack_tar("a.csv", "b.csv"), "holds 2 files"),
    (pack_zip(a_csv=TABLE)[:60], "is damaged"),
    (pack_tar("a.csv")[:90], "is damaged|cut off"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
    (b"%PDF-1.7", "PDF"),
    (b"PK\x03\x04 but no zip", "damaged"),
    (b'{"products": [], "total": 0}', "no list of products"),
    (b'{"name": "Shop"}', "no list of products"),
]


# Archives hold the time: their content cannot name the test.
@pytest.mark.parametrize(("content", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_other_files_are_refused(shop: Shop, content: bytes, reason: str) -> None:
    """The sentence says what the file is or holds."""
    with pytest.raises(InvalidInputError, match=reason):
        plan_import(shop.file("a.csv", content))


async def test_encoding_can_be_forced(shop: Shop) -> None:
    """`--encoding` replaces detection; an unknown one is named."""
    path = shop.file("a.csv", "id,title,price\n1,Чайник,5 EUR\n".encode("cp1251"))
    await shop.take(path, encoding="windows-1251")
    assert shop.product("1").title == "Чайник"
    with pytest.raises(InvalidInputError, match="--encoding: there is no encoding 'utf-9'"):
        plan_import(path, ImportOptions(encoding="utf-9"))


STRAY_QUOTES = [
    '"Unclosed thing,5 USD,x',
    'Thing,"5 USD,x',
    '"Thing" and more,5 USD,x',
    'Thing,5 USD,"x',
    '"27" screen, large,5 USD,x',
]


@pytest.mark.parametrize("cells", STRAY_QUOTES)
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_stray_quote_costs_one_row(shop: Shop, cells: str, count: int) -> None:
    """Rows with a stray quote are rejected with their line; all others are taken, also quoted ones with line breaks."""
    bad = {5 * n for n in range(1, count + 1)}
    rows = [
        f"{n},{cells}"
        if n in bad
        else f'{n},"Thing, {n}\nof ""two"" lines",{n} USD,x'
        if n % 4 == 0
        else f"{n},Thing {n},{n} USD,x"
        for n in range(1, 41)
    ]
    path = shop.file("a.csv", "\n".join(["id,title,price,note", *rows]))
    report = await shop.take(path)
    assert (report.read, report.inserted, report.rejected) == (40, 40 - count, count)
    breaks = [sum(1 for n in range(1, number) if n % 4 == 0 and n not in bad) for number in sorted(bad)]
    assert [reject["line"] for reject in shop.rejects(path)] == [
        n + 1 + b for n, b in zip(sorted(bad), breaks, strict=True)
    ]
    assert shop.product("8").title == 'Thing, 8 of "two" lines'


def test_two_stray_quotes_do_not_close_each_other(shop: Shop) -> None:
    """A quote that is closed by another row's stray quote does not hide the rows between."""
    rows = [f"{n},Thing {n},{n} USD" for n in range(1, 11)]
    rows[3], rows[7] = '4,"Thing 4,4 USD', '8,Thing 8",8 USD'
    report, reasons = check_plan(plan_import(shop.file("a.csv", "\n".join(["id,title,price", *rows]))))
    assert (report.read, report.rejected) == (10, 1)
    assert reasons == ["line 5: line is not CSV: a quote is not closed"]


async def test_backslashes_escape_quotes(shop: Shop) -> None:
    """Quotes escaped by a backslash are read as such."""
    await shop.take(shop.file("a.csv", 'id,title,price\n1,"Screen of 27\\" size, curved",5 EUR\n'))
    assert shop.product("1").title == 'Screen of 27" size, curved'


async def test_short_rows_are_padded(shop: Shop) -> None:
    """A missing last cell is empty; empty cells beyond the headings are ignored, others are not."""
    path = shop.file(
        "a.csv", "id,title,price,colour,size\n1,A,5 EUR\n2,B,5 EUR,red,L,,\n3,C,5 EUR,red,L,extra\n4,D,5 EUR,red\n"
    )
    report = await shop.take(path)
    assert (report.inserted, report.rejected) == (3, 1)
    assert shop.product("1").attributes == {}
    assert shop.product("4").attributes == {"colour": "red"}


WRITERS: dict[str, Callable[[int], str]] = {
    "csv": lambda n: f'{n},"Thing, {n}","{n} USD",{n % 5},https://s.example/{n}\n',
    "tsv": lambda n: f"{n}\tThing {n}\t{n} USD\t{n % 5}\thttps://s.example/{n}\n",
    "jsonl": lambda n: json.dumps({"id": n, "title": f"Thing {n}", "price": f"{n} USD", "rating": n % 5}) + "\n",
}
HEADERS = {"csv": "id,title,price,rating,link\n", "tsv": "id\ttitle\tprice\trating\tlink\n", "jsonl": ""}
DAMAGE = ['"', '""', "\x00", "\\", "é", ",", "\t", ";", "|", "\r", "'", "{", "}", " ", "-", "9" * 40, "\ud800"]


@pytest.mark.parametrize("seed", range(6))
async def test_damaged_files_are_accounted_for(shop: Shop, seed: int) -> None:
    """Each row is inserted, updated, unchanged, repeated, rejected or left out, and rows without damage are taken."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    for _ in range(50):
        kind = chance.choice(list(WRITERS))
        rows = [WRITERS[kind](n) for n in range(1, 21)]
        damaged = set(chance.sample(range(20), chance.randint(1, 4)))
        for number in damaged:
            text = rows[number].rstrip("\n")
            place = chance.randrange(len(text))
            rows[number] = text[:place] + chance.choice(DAMAGE) + text[place + chance.randint(0, 3) :] + "\n"
        path = shop.file("a.txt", (HEADERS[kind] + "".join(rows)).encode("utf-8", "surrogatepass"))
        shop.store.table(Product).clear()
        report = await shop.take(path, currency="USD")
        outcomes = (
            report.inserted,
            report.updated,
            report.unchanged,
            report.repeated,
            report.rejected,
            report.left_out,
        )
        assert report.read == sum(outcomes), rows
        assert 20 - len(damaged) <= report.read <= 20 + sum(row.count("\r") for row in rows), rows
        products = {product.source_id for product in shop.store.table(Product).values()}
        assert {str(number + 1) for number in range(20) if number not in damaged} <= products, rows
        again = await shop.take(path, currency="USD")
        assert (again.inserted, again.read) == (0, report.read), rows


@pytest.mark.parametrize("kind", ["csv", "jsonl", "xml"])
def test_large_files_are_read_in_pieces(shop: Shop, kind: str) -> None:
    """Memory does not grow with the file, packed or not."""
    count = 15_000
    if kind == "xml":
        entries = (
            f"<item><id>{n}</id><title>Thing {n}</title><price>{n} USD</price></item>\n" for n in range(1, count + 1)
        )
        content = "<rss>" + "".join(entries) + "</rss>"
    else:
        content = HEADERS[kind] + "".join(map(WRITERS[kind], range(1, count + 1)))
    file = CatalogFile(shop.file("a.gz", gzip.compress(content.encode(), 1)))
    tracemalloc.start()
    try:
        assert sum(row.values is not None for row in islice(file.read_rows(), count)) == count
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_standard_input_needs_no_name() -> None:
    """Other paths are files."""
    with pytest.raises(InvalidInputError, match="No such file"):
        CatalogFile(Path("missing.csv"))
