"""`shopassist catalog import` as a command: what is shown before anything is written, and what is refused."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from tests.support.commands import Outcome, run_commands

Import = Callable[..., Awaitable[list[Outcome]]]
GOOD = "id,title,price\n1,Desk,5 EUR\n2,Seat,6 EUR\n"


@pytest.fixture
async def imports(database_url: str, tmp_path: Path) -> Import:
    """Return a function that imports files, each with its options, in one process; the first may be standard input."""
    environment = {"DATABASE_URL": database_url, "SHOPASSIST_DATA": str(tmp_path / "data"), "SECRET_KEY": "k" * 32,
                   "SAMPLE_CATALOGUE": "false"}  # fmt: skip

    async def run(*commands: tuple[object, ...], stdin: Path | None = None) -> list[Outcome]:
        arguments = [("catalog", "import", *command) for command in commands]
        given = {"stdin": str(stdin)} if stdin else {}
        return await asyncio.to_thread(run_commands, tmp_path, arguments, environment, **given)

    return run


async def read_titles(url: str) -> list[str]:
    """Return the titles of all products."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return [row["title"] for row in await connection.fetch("SELECT title FROM products ORDER BY source, source_id")]
    finally:
        await connection.close()


async def test_useless_imports_are_refused(imports: Import, database_url: str, tmp_path: Path) -> None:
    """Without a column of prices, or with most rows unusable, nothing is written unless it is accepted."""
    files = {
        "unpriced.csv": "id,title,weight\n1,Desk,5\n",
        "mostly_bad.csv": "id,title,price\n1,Desk,5 EUR\n2,,5 EUR\n3,Seat,call us\n4,Lamp,\n",
        "half_bad.csv": "id,title,price\n1,Shelf,5 EUR\n2,,5 EUR\n",
        "sold.csv": "id,title,price,availability\n1,Rug,5 EUR,in stock\n2,a,,sold out\n3,b,,sold out\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    unpriced, mostly, half, sold = await imports(*((name,) for name in files))
    assert (unpriced.code, mostly.code, half.code, sold.code) == (1, 1, 0, 0)
    assert "No column looks like a price: name it by --map price=COLUMN. Nothing was written" in unpriced.stderr
    assert "Of 4 rows 2 would be rejected and 1 have no price" in mostly.stderr
    assert "line 3: title is empty" in mostly.stderr
    assert "2 left out as not for sale" in sold.stderr
    assert await read_titles(database_url) == ["Shelf", "Rug"]
    for outcome in await imports(("unpriced.csv", "--accept"), ("mostly_bad.csv", "--accept")):
        assert outcome.code == 0
    assert await read_titles(database_url) == ["Shelf", "Desk", "Lamp", "Rug", "Desk"]


async def test_dry_run_changes_nothing(imports: Import, database_url: str, tmp_path: Path) -> None:
    """The mapping and the counts are shown; neither a product nor a file is written."""
    (tmp_path / "a.csv").write_text(GOOD + "3,,7 EUR\n")
    shown, counted = await imports(("a.csv", "--dry-run"), ("a.csv", "--dry-run", "--json"))
    assert (shown.code, counted.code) == (0, 0)
    assert "3 rows: 2 would be taken, 0 repeated, 1 rejected" in shown.stderr
    assert "source_id" in shown.stderr
    report = json.loads(counted.stdout)
    assert (report["dry_run"], report["read"], report["rejected"], report["inserted"]) == (True, 3, 1, 0)
    assert not (tmp_path / "a.csv.rejects.jsonl").exists()
    assert await read_titles(database_url) == []


async def test_missing_files_are_named(imports: Import) -> None:
    """A file that does not exist, and a folder, give one sentence."""
    missing, folder = await imports(("missing.csv",), ("data",))
    assert (missing.code, folder.code) == (1, 1)
    assert "missing.csv cannot be read: No such file or directory." in missing.stderr


async def test_standard_input(imports: Import, database_url: str, tmp_path: Path) -> None:
    """`-` reads standard input; its products belong to the source "stdin" unless named."""
    (tmp_path / "given").write_text(GOOD + "3,,7 EUR\n")
    [outcome] = await imports(("-", "--json", "--map", "brand=-"), stdin=tmp_path / "given")
    assert outcome.code == 0, outcome
    report = json.loads(outcome.stdout)
    assert (report["source"], report["inserted"], report["rejects"]) == ("stdin", 2, "stdin.rejects.jsonl")
    assert (tmp_path / "stdin.rejects.jsonl").exists()
    assert await read_titles(database_url) == ["Desk", "Seat"]
