"""Plan how a catalogue file is read: guess from its first rows, apply the options, describe the result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from shopassist.catalog.importer.readers import CatalogFile
from shopassist.catalog.importer.rows import (
    COLUMN_SYNONYMS,
    MAX_FIELD_LENGTHS,
    FileLayout,
    ProductBuilder,
    detect_layout,
    map_columns,
)
from shopassist.catalog.importer.values import (
    InvalidRowError,
    has_currency_mark,
    parse_currency,
    parse_link,
    parse_text,
)
from shopassist.errors import InvalidInputError

SAMPLED_ROWS = 200
MAX_SOURCE_LENGTH = 64


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the owner of the file says; everything may be left to guessing.

    `columns` maps a field to its column. `currency` holds where a row names none. `minor` says that prices are in
    cents. `link_template` holds `{query}`. `rejects` is the file for refused rows.
    """

    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    currency: str | None = None
    minor: bool | None = None
    link_template: str | None = None
    rejects: Path | None = None


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """A file and the way to read it. `shown` are the lines of a table: field, column, remark."""

    file: CatalogFile
    builder: ProductBuilder
    rejects: Path
    description: list[tuple[str, str, str]]


def plan_import(path: Path, options: ImportOptions | None = None) -> ImportPlan:
    """Look at the beginning of the file. Raises `InvalidInputError` with what its owner has to say or mend."""
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
    layout = detect_layout(columns)
    mapping = map_columns(columns, options.columns)
    builder = ProductBuilder(
        source=_choose_source(path, options.source),
        mapping=mapping,
        layout=layout,
        currency=_choose_currency(rows, mapping, layout, options.currency),
        minor=options.minor if options.minor is not None else bool(layout and layout.minor),
        link_template=_check_link_template(options.link_template),
    )
    rejects = options.rejects or path.with_name(f"{path.name}.rejects.jsonl")
    return ImportPlan(file, builder, rejects, _describe_plan(builder, columns))


def _choose_source(path: Path, given: str | None) -> str:
    name = given or path.name.split(".")[0]
    try:
        source = parse_text("--source", name, MAX_SOURCE_LENGTH)
    except InvalidRowError as refusal:
        raise InvalidInputError(f"{refusal}.") from None
    if source is None:
        raise InvalidInputError("The file has no name to call its products by: say --source NAME.")
    return source


def _choose_currency(
    rows: Sequence[Mapping[str, Any]], mapping: Mapping[str, str], layout: FileLayout | None, given: str | None
) -> str | None:
    """The currency of prices that name none themselves. Raises `InvalidInputError` when nothing tells it."""
    try:
        known = parse_currency(given) or (layout.currency if layout else None)
    except InvalidRowError as refusal:
        raise InvalidInputError(f"--currency: {refusal}.") from None
    price, currency = mapping.get("price"), mapping.get("currency")
    if known or price is None or not any(row.get(price) not in (None, "") for row in rows):
        return known
    if not any(has_currency_mark(row.get(price)) or (currency and row.get(currency)) for row in rows):
        raise InvalidInputError(
            f"The prices in {price!r} name no currency: say --currency CODE, or --map currency=COLUMN."
        )
    return None


def _check_link_template(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        usable = (
            "{query}" in given and parse_link(given.replace("{query}", "x"), MAX_FIELD_LENGTHS["link"] // 2) is not None
        )
    except InvalidRowError:
        usable = False
    if not usable:
        raise InvalidInputError("The link template must be an http(s) address that holds {query}.")
    return given


def _describe_plan(reader: ProductBuilder, columns: Iterable[str]) -> list[tuple[str, str, str]]:
    shape = f", as in the {reader.layout.name} shape" if reader.layout else ""
    remarks = {
        "price": f"in {'minor' if reader.minor else 'major'} units{shape}" if "price" in reader.mapping else "none",
        "source_id": "" if "source_id" in reader.mapping else "a fingerprint of brand and title",
        "currency": f"{reader.currency} where a row names none{shape}" if reader.currency else "",
        "link": "" if "link" in reader.mapping else "a search in a store for brand and title",
    }
    lines = [
        (name, reader.mapping.get(name, "-"), remarks.get(name, "")) for name in COLUMN_SYNONYMS if name != "attributes"
    ]
    others = sum(name not in reader.mapping.values() for name in columns)
    named = reader.mapping.get("attributes")
    remark = f"{others} other columns seen so far; without links, pictures and nested records"
    return [*lines, ("attributes", named or "-", remark)]
