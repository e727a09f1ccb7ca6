"""Map the columns of a catalogue file to product fields and build one product from each row.

ICEcat attributes get the catalogue's keys and units, and a category where it is certain.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from shopassist.catalog.attributes import ATTRIBUTES, COMPUTERS
from shopassist.catalog.importer.values import (
    CENT,
    InvalidRowError,
    abbreviate,
    build_store_link,
    parse_attribute_value,
    parse_currency,
    parse_date,
    parse_link,
    parse_number,
    parse_price,
    parse_text,
)
from shopassist.catalog.models import Product, build_product_words
from shopassist.errors import InvalidInputError

COLUMN_SYNONYMS = {
    "source_id": ("source_id", "id", "product_id", "item_id", "asin", "sku", "uniq_id", "gtin", "ean"),
    "title": ("title", "product_title", "product_name", "item_name", "name"),
    "brand": ("brand", "brand_name", "supplier", "manufacturer", "vendor", "make"),
    "category": ("category", "category_name", "product_category", "main_category", "department"),
    "description": ("description", "product_description", "long_description", "short_description", "about_product",
                    "about", "summary"),
    "price": ("price", "current_price", "sale_price", "selling_price", "discounted_price", "final_price",
              "actual_price", "mrp"),
    "currency": ("currency", "currency_code", "price_currency"),
    "price_as_of": ("price_as_of", "price_date"),
    "rating": ("rating", "average_rating", "avg_rating", "stars", "review_rating"),
    "rating_count": ("rating_count", "ratings_count", "review_count", "reviews_count", "num_reviews",
                     "number_of_reviews", "no_of_ratings", "reviews"),
    "link": ("link", "url", "product_url", "product_link", "href"),
    "attributes": ("attributes", "specifications", "specs"),
}  # fmt: skip
"""Fields of products, and the names of columns that hold them, the most likely first."""

MAX_LISTED_COLUMNS = 12


class FileLayout(NamedTuple):
    """A known kind of file, recognised by the columns `signature`; the currency and the unit of its prices."""

    name: str
    signature: frozenset[str]
    currency: str
    in_minor_units: bool = False


ICECAT = FileLayout(
    "ICEcat open catalogue", frozenset({"supplier", "short_description", "img_500x500"}), "USD", in_minor_units=True
)
DUMMYJSON = FileLayout("DummyJSON", frozenset({"discountPercentage", "availabilityStatus", "thumbnail"}), "USD")
LAYOUTS = (ICECAT, DUMMYJSON)


@lru_cache(maxsize=10_000)
def to_snake_case(name: str) -> str:
    """Convert the name of a column to a key: "warrantyInformation" and "Warranty information" are the same."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", spaced).strip("_").lower()


def map_columns(columns: Sequence[str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each field: that of `overrides`, else guessed from the names.

    Raise `InvalidInputError` for an override of an unknown field or column, and if no column is the title.
    """
    for field, column in overrides.items():
        if field not in COLUMN_SYNONYMS:
            raise InvalidInputError(f"--map: there is no field {field!r}; the fields are {', '.join(COLUMN_SYNONYMS)}.")
        if column not in columns:
            raise InvalidInputError(f"--map: the file has no column {column!r}; it has {_list_columns(columns)}.")
    taken = set(overrides.values())
    by_name = {to_snake_case(column): column for column in reversed(columns) if column not in taken}
    mapping = dict(overrides)
    for field, names in COLUMN_SYNONYMS.items():
        guess = next((by_name[name] for name in names if name in by_name), None)
        if field not in mapping and guess is not None:
            mapping[field] = guess
    if "title" not in mapping:
        raise InvalidInputError(
            f"No column looks like a title: name it by --map title=COLUMN. Seen: {_list_columns(columns)}."
        )
    return {field: mapping[field] for field in COLUMN_SYNONYMS if field in mapping}


def _list_columns(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:MAX_LISTED_COLUMNS])
    return f"{shown} …" if len(columns) > MAX_LISTED_COLUMNS else shown or "none"


MAX_FIELD_LENGTHS = {
    "source_id": 255, "title": 1_000, "brand": 200, "category": 200, "description": 20_000, "link": 2_000,
}  # fmt: skip
MAX_ATTRIBUTE_LENGTH = 10_000
MAX_ATTRIBUTES = 2_000
FLATTENED_COLUMNS = frozenset({"dimensions"})
URL_PATTERN = re.compile(r"(?:https?:)?//\S+", re.IGNORECASE)
STARS_SUFFIX = re.compile(r"\s*(?:out of 5.*|/\s*5|stars?)\s*$", re.IGNORECASE)
MAX_RATING_COUNT = 2**31 - 1


def _iterate_scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names with the scalar values that say something to a reader: no addresses, no nested records."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _iterate_scalars(value) if name in FLATTENED_COLUMNS else ()
        elif isinstance(value, list):
            yield name, ", ".join(str(v) for v in value if isinstance(v, str | int | float) and not _is_url(v))
        elif not _is_url(value):
            yield name, value


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and URL_PATTERN.fullmatch(value.strip()) is not None


ICECAT_PREFIX = re.compile(r"attr_[ntb]_")
LAPTOP_TYPES = frozenset({"notebook", "chromebook", "netbook", "hybrid (2-in-1)", "mobile workstation"})
COMPUTER_TYPES = LAPTOP_TYPES | {"pc", "workstation", "all-in-one pc", "mini pc (<= 3l)"}
CATEGORY_BY_TYPE = {
    **dict.fromkeys(LAPTOP_TYPES, "laptops"),
    **dict.fromkeys(("headphones", "headset"), "headphones"),
    **dict.fromkeys(("stereo portable speaker", "mono portable speaker"), "speakers"),
    **dict.fromkeys(("tabletop router", "portable router"), "routers"),
    "kids digital camera": "cameras",
}
CATEGORY_BY_TITLE = (
    (re.compile(r"\bsmartwatch\b"), "smartwatches"),
    (re.compile(r"\bsmartphone\b"), "smartphones"),
    (re.compile(r"\b(?:computer|lcd|flat panel|widescreen lcd|touch screen) monitor\b"), "monitors"),
    (re.compile(r"\b(?:wireless|wired) router\b"), "routers"),
    (re.compile(r"\b(?:laser|inkjet|photo|label|dot matrix|large format) printer\b"), "printers"),
    (re.compile(r"\b(?:headphones|headset|headphone)\b"), "headphones"),
    (re.compile(r"\b(?:compact|slr|bridge|mirrorless|digital) camera\b"), "cameras"),
    (re.compile(r"\b(?:docking speaker|speaker set|multimedia speakers?|portable speaker)\b"), "speakers"),
    (re.compile(r"\bpower bank\b"), "power banks"),
    (re.compile(r"\b(?:external hard drive|internal hard drive|usb flash drive|memory card)\b"), "storage"),
    (re.compile(r"\bkeyboard (?:usb|ps/2|rf wireless|bluetooth)\b"), "keyboards"),
    (re.compile(r"\bmouse (?:usb|ps/2|rf wireless|bluetooth)\b"), "mice"),
    (re.compile(r"\b(?:lcd|plasma|flat|led|smart) tv\b|\btv \d+(?:\.\d+)? cm\b"), "televisions"),
    (re.compile(r"\b(?:portable game|game|gaming) console\b"), "gaming consoles"),
)
ACCESSORY_IN_TITLE = re.compile(
    r"\b(?:cables?|adapters?|cases?|covers?|bags?|sleeves?|backpacks?|stands?|mounts?|brackets?|holders?|docks?|docking"
    r"|docking station|cradles?|chargers?|batter(?:y|ies)|lamps?|lens|filters?|protectors?|locks?|readers?|enclosures?"
    r"|cabinet|shelf|trays?|drums?|toners?|cartridges?|ribbons?|memory module|printer memory|kit|pads?|rests?"
    r"|remote control|antenna|splitters?|extenders?|switch(?:es)?|converters?|spare part|server|warranty"
    r"|service|svc|care pack|pillow|paper|labels?|skin|arm|wire|outlets?|ups|for)\b"
)
NOT_AN_ACCESSORY = re.compile(r"\b(?:label printer|docking speaker|camera kit|without dock)\b")
MIN_SMARTPHONE_INCHES = 4.5
REPLACED_COLUMNS = frozenset(
    column for row in ATTRIBUTES for source in row.icecat if source.replaced for column in source.columns.split()
)


def _read_icecat(read: str, values: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """Return a value from some columns, in the way that `IcecatSource.read` names."""
    found = [values[column] for column in columns if values.get(column) is not None]
    if read == "text":
        return " ".join(str(value) for value in found if value) or None
    if read == "wireless":
        connectivity, interface = (str(values.get(column, "")).lower() for column in columns)
        is_wireless = "wireless" in connectivity or "rf wireless" in interface
        return is_wireless or (False if connectivity == "wired" else None)
    if read == "number":
        found = [n for n in found if isinstance(n, int | float) and not isinstance(n, bool) and n > 0]
    return next(iter(found), None)


def normalise_icecat_attributes(values: dict[str, Any], title: str) -> tuple[str | None, dict[str, Any]]:
    """Return the category, None if it is uncertain, and the attributes under the catalogue's keys.

    `values` are the columns of a row without ICEcat's prefixes. Columns that were not understood stay.
    """
    product_type = str(values.get("product_type", "")).lower()
    category = _find_category(values, product_type, title.lower())
    groups = {category, *COMPUTERS} if product_type in COMPUTER_TYPES or category == "laptops" else {category}
    attributes = {key: value for key, value in values.items() if key not in REPLACED_COLUMNS}
    for row in ATTRIBUTES:
        source = next((source for source in row.icecat if not source.groups or groups & source.groups), None)
        value = _read_icecat(source.read, values, source.columns.split()) if source else None
        if value is None and source and source.in_title and (in_title := source.in_title.search(title)):
            value = float(in_title[1])
        if value is not None:
            attributes[row.key] = value
    return category, attributes


def _find_category(values: dict[str, Any], product_type: str, title: str) -> str | None:
    if product_type == "headphones" and ("in-ear" in str(values.get("wearing_style", "")).lower() or "in-ear" in title):
        return "earbuds"
    if product_type in CATEGORY_BY_TYPE:
        return CATEGORY_BY_TYPE[product_type]
    if ACCESSORY_IN_TITLE.search(NOT_AN_ACCESSORY.sub("", title)):
        return None
    return _find_category_by_attributes(values) or next(
        (category for noun, category in CATEGORY_BY_TITLE if noun.search(title)), None
    )


def _find_category_by_attributes(values: dict[str, Any]) -> str | None:
    form = str(values.get("form_factor", "")).lower()
    if form == "slate":
        return "tablets"
    if form == "bar" and (_read_icecat("number", values, ("display_diagonal",)) or 0) >= MIN_SMARTPHONE_INCHES:
        return "smartphones"
    if form == "clamshell" and {"processor_family", "internal_memory"} <= values.keys():
        return "laptops"
    return "printers" if any(name.startswith("print_speed_") for name in values) else None


@dataclass(frozen=True)
class ProductBuilder:
    """Builds products of `source` from rows. `currency` is that of rows that name none."""

    source: str
    mapping: Mapping[str, str]
    layout: FileLayout | None = None
    currency: str | None = None
    in_minor_units: bool = False
    link_template: str | None = None

    def build(self, row: Mapping[str, Any]) -> Product:
        """Raise `InvalidRowError` with the reason if the row cannot be used."""
        given = {field: row.get(column) for field, column in self.mapping.items()}
        title = _parse_field(given, "title")
        if title is None:
            raise InvalidRowError("title is empty")
        brand, category, description = (_parse_field(given, name) for name in ("brand", "category", "description"))
        attributes = self._build_attributes(row)
        if self.layout is ICECAT:
            derived, attributes = normalise_icecat_attributes(attributes, title)
            category = category or derived
        currency = parse_currency(given.get("currency"))
        price = parse_price(given.get("price"), currency, self.currency, in_minor_units=self.in_minor_units)
        if price is not None and price[1] is None:
            raise InvalidRowError("the price has no currency")
        amount, currency = price or (None, None)
        link = parse_link(given.get("link"), MAX_FIELD_LENGTHS["link"])
        source_id = _parse_field(given, "source_id")
        if "source_id" not in given:
            source_id = hashlib.sha256("\n".join((brand or "", title, link or "")).encode()).hexdigest()[:32]
        elif source_id is None:
            raise InvalidRowError(f"{self.mapping['source_id']} (the id) is empty")
        return Product(
            source=self.source,
            source_id=source_id,
            title=title,
            brand=brand,
            category=category,
            description=description,
            price=amount,
            currency=currency,
            price_as_of=parse_date(given.get("price_as_of")),
            rating=_parse_rating(given.get("rating")),
            rating_count=_parse_rating_count(given.get("rating_count")),
            attributes=attributes,
            link=link or build_store_link(self.link_template, brand, title, currency),
            words=build_product_words(title, brand, category, description, attributes),
        )

    def _build_attributes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        mapped = {column for field, column in self.mapping.items() if field != "attributes"}
        given = row.get(self.mapping["attributes"]) if "attributes" in self.mapping else None
        columns = {name: value for name, value in row.items() if name not in mapped and value is not given}
        attributes: dict[str, Any] = {}
        for name, value in (*_iterate_scalars(columns), *_iterate_scalars(given if isinstance(given, dict) else {})):
            key = to_snake_case(ICECAT_PREFIX.sub("", name) if self.layout is ICECAT else name)
            attribute = parse_attribute_value(abbreviate(key), value, MAX_ATTRIBUTE_LENGTH)
            if key and attribute is not None:
                attributes[parse_text("the name of a column", key, MAX_FIELD_LENGTHS["brand"]) or key] = attribute
        if len(attributes) > MAX_ATTRIBUTES:
            raise InvalidRowError(f"more than {MAX_ATTRIBUTES:,} attributes")
        return attributes


def _parse_field(given: Mapping[str, Any], field: str) -> str | None:
    value = given.get(field)
    if isinstance(value, dict | list):
        raise InvalidRowError(f"{field} is no text")
    return parse_text(field, value, MAX_FIELD_LENGTHS[field])


def _parse_rating(value: Any) -> Decimal | None:
    rating = parse_number("rating", STARS_SUFFIX.sub("", value) if isinstance(value, str) else value, 0, 5)
    return rating and rating.quantize(CENT, ROUND_HALF_UP)


def _parse_rating_count(value: Any) -> int | None:
    count = parse_number("rating count", len(value) if isinstance(value, list) else value, 0, MAX_RATING_COUNT)
    return None if count is None else int(count)
