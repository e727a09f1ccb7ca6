"""Read JSON and JSON lines: whole documents, one object a line, schema.org's JSON-LD."""

import json
from collections.abc import Iterator
from typing import IO, Any

from shopassist.catalog.importer.columns import count_fields
from shopassist.catalog.importer.records import MAX_LINE_CHARACTERS, VARIANT_KEYS, FileRow, read_record
from shopassist.errors import InvalidInputError

MAX_DOCUMENT_BYTES = 256 << 20
MAX_DEPTH = 6
SAMPLED_ENTRIES = 20
PARTS_OF_PRODUCTS = frozenset(
    {*VARIANT_KEYS, "reviews", "review", "images", "media", "options", "attributes", "offers"}
)


def read_json_lines(content: IO[str]) -> Iterator[FileRow]:
    """Yield the rows of one JSON object a line."""
    line = 0
    while text := content.readline(MAX_LINE_CHARACTERS + 1):
        line += 1
        if len(text) > MAX_LINE_CHARACTERS:
            while text and not text.endswith("\n"):
                text = content.readline(MAX_LINE_CHARACTERS)
            yield FileRow(line, None, f"line is longer than {MAX_LINE_CHARACTERS:,} characters")
        elif text.strip("\ufeff \t\r\n"):
            yield from _read_json_line(line, text.strip("\ufeff \t\r\n"))


def _read_json_line(line: int, text: str) -> Iterator[FileRow]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield FileRow(line, None, f"line is not JSON: {error}", text)
    else:
        yield from read_record(line, value)


def read_json(content: IO[bytes], encoding: str) -> Iterator[FileRow]:
    """Yield the rows of a JSON document; the list of products may be anywhere in it."""
    document = content.read(MAX_DOCUMENT_BYTES + 1)
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidInputError(f"A JSON file over {MAX_DOCUMENT_BYTES >> 20} MiB: write one object a line (.jsonl).")
    try:
        value = json.loads(document.decode(encoding).lstrip("\ufeff"))
    except UnicodeDecodeError:
        raise InvalidInputError(f"The JSON file is not {encoding}.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"The file is not JSON: {error}.") from None
    for number, entry in enumerate(_find_products(value), start=1):
        yield from read_record(number, entry)


def _find_products(value: Any) -> list[Any]:
    """Return the list with the most product-like entries: by price and title, known fields, then length."""
    if isinstance(value, list) and not any(isinstance(entry, dict | list) for entry in value):
        return value
    candidates = list(_iterate_lists(value, 0))
    best = max(candidates, key=lambda entries: (*_rate_entries(entries), len(entries)), default=[])
    if not best or _rate_entries(best) == (0, 0):
        if isinstance(value, list):
            return value
        raise InvalidInputError("The JSON file holds no list of products.")
    return best


def _rate_entries(entries: list[Any]) -> tuple[int, int]:
    sample = [entry for entry in entries[:SAMPLED_ENTRIES] if isinstance(entry, dict)]
    names = list(dict.fromkeys(name for entry in sample for name in entry))
    is_variable = any(key in names for key in ("offers", *VARIANT_KEYS))
    fields = count_fields(names)
    return (
        (int("title" in fields) + int("price" in fields or is_variable), len(fields))
        if "title" in fields or is_variable
        else (0, 0)
    )


def _iterate_lists(value: Any, depth: int) -> Iterator[list[Any]]:
    """Yield the lists of objects in a document: lists, objects by id, and single products."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, list):
        yield _select_products(value)
        for entry in value[:SAMPLED_ENTRIES]:
            yield from _iterate_lists(entry, depth + 1) if isinstance(entry, dict) else ()
    elif isinstance(value, dict):
        if _rate_entries([value])[0] > 1:
            yield [value]
        if len(value) > 0 and all(isinstance(entry, dict) for entry in value.values()):
            yield [{"id": key} | entry for key, entry in value.items()]
        for name, entry in value.items():
            if name not in PARTS_OF_PRODUCTS:
                yield from _iterate_lists(entry, depth + 1)


def _select_products(entries: list[Any]) -> list[Any]:
    """Return the entries; of JSON-LD those that are products, out of their place in a list."""
    items = [e["item"] if isinstance(e, dict) and isinstance(e.get("item"), dict) else e for e in entries]
    products = [item for item in items if isinstance(item, dict) and "Product" in str(item.get("@type", ""))]
    return products or items
