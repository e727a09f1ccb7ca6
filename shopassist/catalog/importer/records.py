"""What the readers of all formats share: the row, and how nested records become rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

MAX_LINE_CHARACTERS = 1 << 20
VARIANT_KEYS = ("variants", "hasVariant")
TEXT_KEYS = ("plain", "name", "title", "text", "value", "label", "html", "rendered", "@value", "markdown")
"""Members of an object that hold what it stands for, the most likely first."""
OPTION_KEYS = ("variant_options", "options", "attributes", "additionalProperty", "specifications", "specs")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its `values`, or the `reason` why it cannot be read. `line` counts from 1 (in JSON: elements).

    `is_repeated`: it adds nothing to the product of an earlier row.
    """

    line: int
    values: dict[str, Any] | None
    reason: str = ""
    raw: str = ""
    is_repeated: bool = False


def read_record(line: int, value: Any) -> Iterator[FileRow]:
    """Yield the row of a JSON value, or one for each of its variants."""
    if not isinstance(value, dict):
        yield FileRow(line, None, "not a JSON object", ascii(value)[:MAX_LINE_CHARACTERS])
        return
    key = next((key for key in VARIANT_KEYS if _is_list_of_objects(value.get(key))), None)
    if key is None:
        yield FileRow(line, flatten_record(value))
        return
    parent = {name: entry for name, entry in value.items() if name != key}
    for variant in value[key]:
        yield FileRow(line, flatten_record(_inherit(parent, variant)))


def _inherit(parent: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variant with what its product says. Its title counts only if it is more than its options."""
    title = next((parent[name] for name in ("title", "name") if parent.get(name)), None)
    own = {name: entry for name, entry in variant.items() if entry not in (None, "", [])}
    merged = {**parent, **own}
    if title:
        for name in ("title", "name"):
            if name in own and str(title).lower() not in str(own[name]).lower():
                merged[name] = title
    options = parent.get("options")
    if _is_list_of_objects(options):
        names = [str(option.get("name", "")) for option in options]
        chosen = {name: variant.get(f"option{number}") for number, name in enumerate(names, start=1)}
        merged = {
            name: entry for name, entry in merged.items() if name not in {"options", "option1", "option2", "option3"}
        }
        merged |= {
            name: entry for name, entry in chosen.items() if entry and entry != "Default Title" and name not in merged
        }
    return merged


def flatten_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its offer, its options and its rating as members of their own, under columns' names."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if name == "offers":
            row |= {key: entry for key, entry in _flatten_offer(value).items() if record.get(key) in (None, "")}
        elif name == "aggregateRating":
            row["rating"] = value
        elif name in OPTION_KEYS and _is_list_of_objects(value):
            row |= {key: entry for key, entry in _iterate_options(value) if key not in record}
        elif name not in row and not name.startswith("@"):
            row[name] = value
    return row


def _flatten_offer(offers: Any) -> dict[str, Any]:
    """Return the price, currency, availability and link of the first offer of schema.org."""
    offer = offers[0] if isinstance(offers, list) and offers else offers
    if not isinstance(offer, dict):
        return {}
    nested = offer.get("priceSpecification")
    specification = nested[0] if _is_list_of_objects(nested) else nested if isinstance(nested, dict) else {}
    found = {
        "price": next((p for p in (offer.get("price"), offer.get("lowPrice"), specification.get("price")) if p), None),
        "currency": offer.get("priceCurrency") or specification.get("priceCurrency"),
        "availability": offer.get("availability"),
        "url": offer.get("url"),
    }
    return {key: entry for key, entry in found.items() if entry not in (None, "")}


def _iterate_options(options: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for option in options:
        name = option.get("name") or option.get("propertyID")
        value = next((option[key] for key in ("value", "option", "options", "values") if option.get(key)), None)
        unit = option.get("unitText")
        if name and value is not None:
            yield str(name), f"{value} {unit}" if unit else value


def _is_list_of_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def get_text_member(value: Any) -> Any:
    """Return what an object stands for ({"id": 5, "name": "Tables"}: "Tables"); anything else as it is."""
    if isinstance(value, dict):
        return next((value[key] for key in TEXT_KEYS if isinstance(value.get(key), str) and value[key].strip()), None)
    return value
