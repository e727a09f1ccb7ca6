"""Stream a planned catalogue file into the repository in batches; rejected rows go to a file."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import IO

from shopassist.catalog.criteria import Criteria
from shopassist.catalog.importer.plan import ImportOptions, ImportPlan, plan_import
from shopassist.catalog.importer.readers import FileRow
from shopassist.catalog.importer.rows import ProductBuilder
from shopassist.catalog.importer.values import InvalidRowError
from shopassist.catalog.models import Product
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError

BATCH_ROWS = 500
SAMPLE_SOURCE = "sample"

RejectRow = Callable[[FileRow, str], None]


@dataclass(slots=True)
class ImportReport:
    """What became of the rows read so far, and how many bytes of the file, compressed as it is, they took."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    repeated: int = 0
    rejected: int = 0
    bytes_read: int = 0


async def import_catalog(
    plan: ImportPlan,
    unit_of_work: UnitOfWork[CatalogRepositories],
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Store the file in transactions of `BATCH` rows and tell about each.

    Raises `InvalidInputError` when the file ends early; what was read before that is stored, and its number told.
    """
    report = ImportReport()
    rows = plan.file.read_rows()
    damage: InvalidInputError | None = None
    with _open_reject_file(plan.rejects) as reject:
        while damage is None:
            products, read, damage = _read_batch(rows, plan.builder, reject)
            if not read:
                break
            report.read += read
            report.rejected += read - len(products)
            report.bytes_read = plan.file.bytes_read
            await _store_batch(products, unit_of_work, report)
            if on_progress:
                on_progress(report)
    if damage is not None:
        taken = report.read - report.rejected
        raise InvalidInputError(f"{damage.detail} The {taken:,} good rows before that were taken.") from damage
    return report


async def load_sample(unit_of_work: UnitOfWork[CatalogRepositories]) -> int:
    """Fill an empty catalogue with the sample that comes with the product; how many products that were.

    Nobody wants samples among products of their own: a catalogue that holds any is left as it is, which costs one
    look at an index. The sample is without rejects (a test says so), and a refusal raises.
    """
    async with unit_of_work() as repositories:
        if await repositories.catalog.search(Criteria(), limit=1):
            return 0
    with as_file(files("shopassist") / "data" / "sample-catalogue.jsonl") as path:
        plan = plan_import(path, ImportOptions(source=SAMPLE_SOURCE))
        products = [plan.builder.build(row.values or {}) for row in plan.file.read_rows()]
    async with unit_of_work() as repositories:
        return (await repositories.catalog.upsert(products)).inserted


def _read_batch(
    rows: Iterator[FileRow], builder: ProductBuilder, reject: RejectRow
) -> tuple[list[Product], int, InvalidInputError | None]:
    """The next products, how many rows they come from, and what ended the file too early."""
    products: list[Product] = []
    read = 0
    try:
        for row in islice(rows, BATCH_ROWS):
            read += 1
            product = _build_or_reject(row, builder, reject)
            if product is not None:
                products.append(product)
    except InvalidInputError as damage:
        return products, read, damage
    return products, read, None


def _build_or_reject(row: FileRow, builder: ProductBuilder, reject: RejectRow) -> Product | None:
    if row.values is None:
        reject(row, row.reason)
        return None
    try:
        return builder.build(row.values)
    except InvalidRowError as refusal:
        reject(row, str(refusal))
        return None


async def _store_batch(
    products: list[Product], unit_of_work: UnitOfWork[CatalogRepositories], report: ImportReport
) -> None:
    async with unit_of_work() as repositories:
        count = await repositories.catalog.upsert(products)
    report.inserted += count.inserted
    report.updated += count.updated
    report.unchanged += count.unchanged
    report.repeated += len(products) - count.inserted - count.updated - count.unchanged


@contextmanager
def _open_reject_file(path: Path) -> Iterator[RejectRow]:
    """Writes rejects. The file comes into being with the first of them; that of an earlier import is gone before."""
    if path.is_file():
        path.unlink()
    file: IO[str] | None = None

    def reject(row: FileRow, reason: str) -> None:
        nonlocal file
        file = file or path.open("w", encoding="ascii")
        content = row.raw if row.values is None else row.values
        file.write(json.dumps({"line": row.line, "reason": reason, "row": content}) + "\n")

    try:
        yield reject
    finally:
        if file:
            file.close()
