"""Import a catalogue file: plan how its columns are read, and store its products in batches."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import IO, Any

from shopassist.catalog.importer.readers import CatalogFile, FileRow
from shopassist.catalog.importer.rows import COLUMN_SYNONYMS, LAYOUTS, MAX_FIELD_LENGTHS, ProductBuilder, map_columns
from shopassist.catalog.importer.values import InvalidRowError, has_currency, parse_currency, parse_link, parse_text
from shopassist.catalog.models import Criteria, Product, UpsertCount
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError

SAMPLED_ROWS = 200
BATCH_ROWS = 500
MAX_SOURCE_LENGTH = 64
SAMPLE_SOURCE = "sample"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the owner of the file states; what is left out is guessed.

    `columns` maps a field to its column. `currency` is that of rows that name none. `link_template` contains `{query}`.
    `rejects` is the file for rejected rows.
    """

    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    currency: str | None = None
    in_minor_units: bool | None = None
    link_template: str | None = None
    rejects: Path | None = None


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """A file and how it is read. `description` has a line per field: field, column, remark."""

    file: CatalogFile
    builder: ProductBuilder
    rejects: Path
    description: list[tuple[str, str, str]]


@dataclass(slots=True)
class ImportReport(UpsertCount):
    """Counts of the rows so far. `bytes_read` is the position in the file, which may be compressed."""

    read: int = 0
    repeated: int = 0
    rejected: int = 0
    bytes_read: int = 0


def plan_import(path: Path, options: ImportOptions | None = None) -> ImportPlan:
    """Decide from the first rows how to read a file. Raise `InvalidInputError` if its owner must state or fix more."""
    options = options or ImportOptions()
    file = CatalogFile(path)
    try:
        rows = [row.values for row in islice(file.read_rows(), SAMPLED_ROWS) if row.values is not None]
    except InvalidInputError as damage:
        raise InvalidInputError(f"{damage.detail} No row was taken.") from damage
    file.bytes_read = 0
    if not rows:
        raise InvalidInputError(f"{path} holds no row that can be read as {file.format}.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    layout = next((layout for layout in LAYOUTS if layout.signature.issubset(columns)), None)
    mapping = map_columns(columns, options.columns)
    in_minor_units = options.in_minor_units
    if in_minor_units is None:
        in_minor_units = layout is not None and layout.in_minor_units
    builder = ProductBuilder(
        source=_choose_source(path, options.source),
        mapping=mapping,
        layout=layout,
        currency=_choose_currency(rows, mapping, options.currency, layout.currency if layout else None),
        in_minor_units=in_minor_units,
        link_template=_check_link_template(options.link_template),
    )
    rejects = options.rejects or path.with_name(f"{path.name}.rejects.jsonl")
    return ImportPlan(file, builder, rejects, _describe_plan(builder, columns))


def _choose_source(path: Path, stated: str | None) -> str:
    try:
        source = parse_text("--source", stated or path.name.split(".")[0], MAX_SOURCE_LENGTH)
    except InvalidRowError as error:
        raise InvalidInputError(f"{error}.") from None
    if source is None:
        raise InvalidInputError("The file has no name to call its products by: say --source NAME.")
    return source


def _choose_currency(
    rows: Sequence[Mapping[str, Any]], mapping: Mapping[str, str], stated: str | None, usual: str | None
) -> str | None:
    """Return the currency of prices that name none. Raise `InvalidInputError` if it is unknown."""
    try:
        known = parse_currency(stated) or usual
    except InvalidRowError as error:
        raise InvalidInputError(f"--currency: {error}.") from None
    price, currency = mapping.get("price"), mapping.get("currency")
    if known or price is None or not any(row.get(price) not in (None, "") for row in rows):
        return known
    if not any(has_currency(row.get(price)) or (currency and row.get(currency)) for row in rows):
        raise InvalidInputError(
            f"The prices in {price!r} name no currency: say --currency CODE, or --map currency=COLUMN."
        )
    return None


def _check_link_template(template: str | None) -> str | None:
    if template is None:
        return None
    try:
        link = parse_link(template.replace("{query}", "x"), MAX_FIELD_LENGTHS["link"] // 2)
    except InvalidRowError:
        link = None
    if link is None or "{query}" not in template:
        raise InvalidInputError("The link template must be an http(s) address that holds {query}.")
    return template


def _describe_plan(builder: ProductBuilder, columns: Iterable[str]) -> list[tuple[str, str, str]]:
    mapping = builder.mapping
    shape = f", as in the {builder.layout.name} shape" if builder.layout else ""
    remarks = {
        "price": f"in {'minor' if builder.in_minor_units else 'major'} units{shape}" if "price" in mapping else "none",
        "source_id": "" if "source_id" in mapping else "a fingerprint of brand and title",
        "currency": f"{builder.currency} where a row names none{shape}" if builder.currency else "",
        "link": "" if "link" in mapping else "a search in a store for brand and title",
    }
    others = sum(name not in mapping.values() for name in columns)
    remarks["attributes"] = f"{others} other columns seen so far; without links, pictures and nested records"
    return [(name, mapping.get(name, "-"), remarks.get(name, "")) for name in COLUMN_SYNONYMS]


RejectRow = Callable[[FileRow, str], None]


async def import_catalog(
    plan: ImportPlan,
    unit_of_work: UnitOfWork[CatalogRepositories],
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Store the file in transactions of `BATCH_ROWS` rows and report progress after each.

    Raise `InvalidInputError` if the file is damaged; rows before the damage are stored.
    """
    report = ImportReport()
    rows = plan.file.read_rows()
    damage: InvalidInputError | None = None
    with _open_reject_file(plan.rejects) as reject:
        while damage is None:
            products, read, damage = _read_batch(rows, plan.builder, reject)
            if not read:
                break
            async with unit_of_work() as repositories:
                count = await repositories.catalog.upsert(products)
            report.read += read
            report.rejected += read - len(products)
            report.inserted += count.inserted
            report.updated += count.updated
            report.unchanged += count.unchanged
            report.repeated += len(products) - count.inserted - count.updated - count.unchanged
            report.bytes_read = plan.file.bytes_read
            if on_progress:
                on_progress(report)
    if damage is not None:
        stored = report.read - report.rejected
        raise InvalidInputError(f"{damage.detail} The {stored:,} good rows before that were taken.") from damage
    return report


async def load_sample(unit_of_work: UnitOfWork[CatalogRepositories]) -> int:
    """Fill an empty catalogue with the sample products; return how many were inserted.

    A catalogue that has any product is left as it is.
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
    """Return the next products, the number of rows read for them, and the error if the file is damaged."""
    products: list[Product] = []
    read = 0
    try:
        for row in islice(rows, BATCH_ROWS):
            read += 1
            if row.values is None:
                reject(row, row.reason)
                continue
            try:
                products.append(builder.build(row.values))
            except InvalidRowError as error:
                reject(row, str(error))
    except InvalidInputError as damage:
        return products, read, damage
    return products, read, None


@contextmanager
def _open_reject_file(path: Path) -> Iterator[RejectRow]:
    """Yield a function that writes rejected rows; the first creates the file. An earlier file is deleted."""
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
