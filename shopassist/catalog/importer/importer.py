"""Import a catalogue file: plan how its columns are read, check it, and store its products in batches."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import IO, Any

from shopassist.catalog.importer.categories import is_path_with_slashes
from shopassist.catalog.importer.columns import (
    COLUMN_SYNONYMS,
    LAYOUTS,
    SHOPIFY,
    SUBCATEGORIES,
    find_heading_currency,
    is_untold,
    list_choices,
    map_columns,
    normalise_heading,
    to_snake_case,
)
from shopassist.catalog.importer.continuations import complete_rows
from shopassist.catalog.importer.prices import has_currency, parse_currency
from shopassist.catalog.importer.readers import CatalogFile
from shopassist.catalog.importer.records import FileRow
from shopassist.catalog.importer.rows import BEST_RATING, MAX_FIELD_LENGTHS, ProductBuilder, find_rating_scale
from shopassist.catalog.importer.sales import find_reason_not_for_sale
from shopassist.catalog.importer.values import PLACEHOLDER, InvalidRowError, parse_link, parse_text
from shopassist.catalog.models import Criteria, Product, UpsertCount
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError

SAMPLED_ROWS = 200
BATCH_ROWS = 500
MAX_SOURCE_LENGTH = 64
MAX_SHOWN_REASONS = 3
SAMPLE_SOURCE = "sample"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the owner of the file states; what is left out is guessed.

    `columns` maps a field to its column, "-" to none. `currency` is that of rows that name none. `link_template`
    contains `{query}` or columns in braces. Relative links are below `link_base`. `rejects` is the file for rejected
    rows.
    """

    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    currency: str | None = None
    in_minor_units: bool | None = None
    link_template: str | None = None
    rejects: Path | None = None
    encoding: str | None = None
    link_base: str | None = None


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """A file and how it is read. `description` has a line per field: field, column, remark."""

    file: CatalogFile
    builder: ProductBuilder
    rejects: Path
    description: list[tuple[str, str, str]]

    def read_rows(self) -> Iterator[FileRow]:
        """Yield the rows of the file, those of Shopify's further variants completed."""
        rows = self.file.read_rows()
        return complete_rows(rows) if self.builder.layout is SHOPIFY else rows


@dataclass(slots=True)
class ImportReport(UpsertCount):
    """Counts of the rows so far: `read` is the sum of the others.

    `left_out` rows are not for sale. `dropped` counts optional values that could not be used, by field. `bytes_read` is
    the position in the file, which may be compressed.
    """

    read: int = 0
    repeated: int = 0
    rejected: int = 0
    left_out: int = 0
    without_price: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    bytes_read: int = 0


def plan_import(path: Path, options: ImportOptions | None = None) -> ImportPlan:
    """Decide from the first rows how to read a file. Raise `InvalidInputError` if its owner must state or fix more."""
    options = options or ImportOptions()
    try:
        file = CatalogFile(path, options.encoding)
        sampled = list(islice(file.read_rows(), SAMPLED_ROWS))
    except InvalidInputError as damage:
        raise InvalidInputError(f"{damage.detail} No row was taken.") from damage
    file.bytes_read = 0
    rows = [row.values for row in sampled if row.values is not None]
    layout = next((layout for layout in LAYOUTS if rows and layout.signature.issubset(_list_columns(rows))), None)
    if layout is SHOPIFY:
        rows = [row.values for row in complete_rows(iter(sampled)) if row.values is not None and not row.is_repeated]
    if not rows:
        raise InvalidInputError(f"{path} holds no row that can be read as {file.format}.")
    columns = _list_columns(rows)
    mapping = map_columns(columns, options.columns)
    choices = list_choices(columns, options.columns) if layout is None or not layout.keeps_all_columns else {}
    in_minor_units = options.in_minor_units
    if in_minor_units is None:
        in_minor_units = layout is not None and layout.in_minor_units
    prices = choices.get("price", (mapping["price"],) if "price" in mapping else ())
    named = {column: code for column in prices if (code := find_heading_currency(column))}
    categories = choices.get("category", (mapping["category"],) if "category" in mapping else ())
    builder = ProductBuilder(
        source=_choose_source(file, options.source),
        mapping=mapping,
        layout=layout,
        currency=_choose_currency(
            rows, prices, mapping.get("currency"), options.currency, layout.currency if layout else None
        )
        if not named or options.currency
        else None,
        in_minor_units=in_minor_units,
        link_template=_check_link_template(options.link_template, columns),
        link_base=_check_link_base(options.link_base),
        choices=choices,
        price_currencies=named,
        rating_scale=find_rating_scale([row.get(mapping["rating"]) for row in rows])
        if "rating" in mapping
        else BEST_RATING,
        subcategory=next((name for name in columns if normalise_heading(name) in SUBCATEGORIES), None),
        slash_separates=is_path_with_slashes([row.get(column) for row in rows for column in categories]),
    )
    folder = Path() if file.name == "stdin" else path.parent
    rejects = options.rejects or folder / f"{file.name}.rejects.jsonl"
    return ImportPlan(file, builder, rejects, _describe_plan(builder, columns))


def _list_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _choose_source(file: CatalogFile, stated: str | None) -> str:
    try:
        source = parse_text("--source", stated or file.name.split(".")[0], MAX_SOURCE_LENGTH)
    except InvalidRowError as error:
        raise InvalidInputError(f"{error}.") from None
    if source is None:
        raise InvalidInputError("The file has no name to call its products by: say --source NAME.")
    return source


def _choose_currency(
    rows: Sequence[Mapping[str, Any]], prices: Sequence[str], column: str | None, stated: str | None, usual: str | None
) -> str | None:
    """Return the currency of prices that name none. Raise `InvalidInputError` if it is unknown."""
    try:
        known = parse_currency(stated) or usual
    except InvalidRowError as error:
        raise InvalidInputError(f"--currency: {error}.") from None
    values = [row.get(price) for row in rows for price in prices]
    if known or all(value in (None, "") for value in values):
        return known
    if not any(map(has_currency, values)) and not (column and any(row.get(column) for row in rows)):
        raise InvalidInputError(
            f"The prices in {prices[0]!r} name no currency: say --currency CODE, or --map currency=COLUMN."
        )
    return None


def _check_link_template(template: str | None, columns: Sequence[str]) -> str | None:
    """Return the template with the columns in braces spelled as in the file."""
    if template is None:
        return None
    by_key = {to_snake_case(column): column for column in reversed(columns)}
    names = PLACEHOLDER.findall(template)
    for name in names:
        column = name if name in {*columns, "query"} else by_key.get(to_snake_case(name))
        if column is None:
            raise InvalidInputError(f"The link template names {{{name}}}, which is no column of the file.")
        template = template.replace(f"{{{name}}}", f"{{{column}}}")
    if not names or not _is_link(PLACEHOLDER.sub("x", template)):
        raise InvalidInputError("The link template must be an http(s) address that holds {query} or {a column}.")
    return template


def _check_link_base(base: str | None) -> str | None:
    if base is not None and not _is_link(base):
        raise InvalidInputError("--link-base must be an http(s) address, as https://shop.example.")
    return base


def _is_link(address: str) -> bool:
    try:
        return parse_link(address, MAX_FIELD_LENGTHS["link"] // 2) is not None
    except InvalidRowError:
        return False


def _describe_plan(builder: ProductBuilder, columns: Iterable[str]) -> list[tuple[str, str, str]]:
    mapping = builder.mapping
    shape = f", as in the {builder.layout.name} shape" if builder.layout else ""
    named = "".join(f", {code} in {column!r}" for column, code in builder.price_currencies.items())
    search = "a search in a store for brand and title"
    remarks = {
        "price": f"in {'minor' if builder.in_minor_units else 'major'} units{shape}{named}"
        if "price" in mapping
        else "none",
        "source_id": "" if "source_id" in mapping else "a fingerprint of brand and title",
        "currency": f"{builder.currency} where a row names none{shape}" if builder.currency else "",
        "rating": f"out of {builder.rating_scale}" if builder.rating_scale != BEST_RATING else "",
        "link": "" if "link" in mapping else builder.link_template or search,
    }
    used = {*mapping.values(), *(column for choice in builder.choices.values() for column in choice)}
    keeps_all = builder.layout is not None and builder.layout.keeps_all_columns
    others = sum(name not in used and (keeps_all or not is_untold(name)) for name in columns)
    remarks["attributes"] = f"{others} other columns seen so far; without links, pictures and nested records"
    shown = {name: ", else ".join(choice) for name, choice in builder.choices.items() if name in mapping}
    return [(name, shown.get(name) or mapping.get(name, "-"), remarks.get(name, "")) for name in COLUMN_SYNONYMS]


RejectRow = Callable[[FileRow, str], None]


def check_plan(plan: ImportPlan) -> tuple[ImportReport, list[str]]:
    """Read the whole file without storing anything; return the counts and the first reasons of rejected rows."""
    reasons: list[str] = []

    def reject(row: FileRow, reason: str) -> None:
        if len(reasons) < MAX_SHOWN_REASONS:
            reasons.append(f"line {row.line:,}: {reason}")

    report = ImportReport()
    rows = plan.read_rows()
    damage: InvalidInputError | None = None
    while damage is None:
        read = report.read
        _, damage = _read_batch(rows, plan.builder, reject, report)
        if report.read == read:
            break
    report.dropped = dict(plan.builder.dropped)
    plan.builder.dropped.clear()
    return report, reasons


def find_reason_to_refuse(plan: ImportPlan, report: ImportReport) -> str | None:
    """Return why an import would be of little use: no column of prices, or most rows rejected or without a price."""
    if "price" not in plan.builder.mapping:
        return "No column looks like a price: name it by --map price=COLUMN."
    meant = report.read - report.left_out - report.repeated
    unusable = report.rejected + report.without_price
    if unusable * 2 > meant:
        return (
            f"Of {meant:,} rows {report.rejected:,} would be rejected and {report.without_price:,} have no price: "
            "correct the columns by --map, or the file."
        )
    return None


async def import_catalog(
    plan: ImportPlan,
    unit_of_work: UnitOfWork[CatalogRepositories],
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Store the file in transactions of `BATCH_ROWS` rows and report progress after each.

    Raise `InvalidInputError` if the file is damaged; rows before the damage are stored.
    """
    report = ImportReport()
    rows = plan.read_rows()
    damage: InvalidInputError | None = None
    stored = 0
    with _open_reject_file(plan.rejects) as reject:
        while damage is None:
            read = report.read
            batch, damage = _read_batch(rows, plan.builder, reject, report)
            if report.read == read:
                break
            products = [Product(**fields) for fields in batch]
            async with unit_of_work() as repositories:
                count = await repositories.catalog.upsert(products)
            stored += len(products)
            report.inserted += count.inserted
            report.updated += count.updated
            report.unchanged += count.unchanged
            report.repeated += len(products) - count.inserted - count.updated - count.unchanged
            report.bytes_read = plan.file.bytes_read
            report.dropped = dict(plan.builder.dropped)
            if on_progress:
                on_progress(report)
    if damage is not None:
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
    rows: Iterator[FileRow], builder: ProductBuilder, reject: RejectRow, report: ImportReport
) -> tuple[list[dict[str, Any]], InvalidInputError | None]:
    """Return the fields of the next products, and the error if the file is damaged; count the rows that give none."""
    products: list[dict[str, Any]] = []
    keeps_all = builder.layout is not None and builder.layout.keeps_all_columns
    try:
        for row in islice(rows, BATCH_ROWS):
            report.read += 1
            if row.values is None:
                report.rejected += 1
                reject(row, row.reason)
            elif row.is_repeated:
                report.repeated += 1
            elif not keeps_all and find_reason_not_for_sale(row.values):
                report.left_out += 1
            else:
                try:
                    products.append(builder.read_fields(row.values))
                except InvalidRowError as error:
                    report.rejected += 1
                    reject(row, str(error))
    except InvalidInputError as damage:
        return products, damage
    finally:
        report.without_price += sum(fields["price"] is None for fields in products)
    return products, None


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
