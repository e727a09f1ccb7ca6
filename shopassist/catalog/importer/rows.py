"""Build one product from each row of a catalogue file, by the columns that hold its fields."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from shopassist.catalog.importer import columns as known
from shopassist.catalog.importer.categories import PATH_SEPARATOR, split_category
from shopassist.catalog.importer.columns import ICECAT, FileLayout, to_snake_case
from shopassist.catalog.importer.icecat import ICECAT_PREFIX, normalise_icecat_attributes
from shopassist.catalog.importer.prices import CENT, parse_currency, parse_price
from shopassist.catalog.importer.records import get_text_member
from shopassist.catalog.importer.sales import is_about_sales, is_sale_over
from shopassist.catalog.importer.values import (
    InvalidRowError,
    abbreviate,
    build_store_link,
    complete_link,
    fill_link,
    parse_attribute_value,
    parse_date,
    parse_link,
    parse_number,
    parse_text,
)
from shopassist.catalog.models import Product, build_product_words

MAX_FIELD_LENGTHS = {
    "source_id": 255, "title": 1_000, "brand": 200, "category": 200, "description": 20_000, "link": 2_000,
}  # fmt: skip
MAX_ATTRIBUTE_LENGTH = 10_000
MAX_ATTRIBUTES = 2_000
FLATTENED_COLUMNS = frozenset({"dimensions"})
URL_PATTERN = re.compile(r"(?:https?:)?//\S+", re.IGNORECASE)
RATING_PATTERN = re.compile(
    r"(\d+(?:[.,]\d+)?)\s*(?:(?:/|out of|of|von|sur|de|su)\s*(10{0,2}|5)(?:\.0+)?\b.*|(%)"
    r"|(?:stars?|sterne|étoiles|estrellas|estrelas|★|⭐)?)",
    re.IGNORECASE,
)
BLANK = re.compile(r"(?:[-–—]|n/?a|none|null|0+(?:[.,]0*)?)?", re.IGNORECASE)
BEST_RATING = 5
SCALES = (5, 10, 100)
RATING_MEMBERS = ("rate", "value", "average", "ratingValue", "rating", "stars", "score")
COUNT_MEMBERS = ("count", "ratingCount", "reviewCount", "total", "votes")
MAX_RATING_COUNT = 2**31 - 1
CATEGORY_PATH = "category_path"
EFFECTIVE_DATE = "sale_price_effective_date"
PRODUCT_TYPES = frozenset({"simple", "variable", "variation", "grouped", "configurable", "virtual", "bundle"})
"""Kinds of products in shop software, which say nothing to a shopper."""


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


@dataclass(frozen=True)
class ProductBuilder:
    """Builds products of `source` from rows. `currency` is that of rows that name none.

    `mapping` names the column of each field; of the columns in `choices` a row takes the first that is not empty.
    `price_currencies` are the currencies that headings of prices name. `rating_scale` is the best rating. `dropped`
    counts the fields that were left out because they could not be used.
    """

    source: str
    mapping: Mapping[str, str]
    layout: FileLayout | None = None
    currency: str | None = None
    in_minor_units: bool = False
    link_template: str | None = None
    link_base: str | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    price_currencies: Mapping[str, str] = field(default_factory=dict)
    rating_scale: int = BEST_RATING
    slash_separates: bool = False
    subcategory: str | None = None
    dropped: Counter[str] = field(default_factory=Counter)

    def build(self, row: Mapping[str, Any]) -> Product:
        """Raise `InvalidRowError` with the reason if the row cannot be used."""
        return Product(**self.read_fields(row))

    def read_fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the product, which costs half of building it. Raise as `build` does."""
        given = {name: row.get(self._choose_column(name, row)) for name in self.mapping}
        title = _parse_field(given, "title")
        if title is None:
            raise InvalidRowError("title is empty")
        brand, description = (_parse_field(given, name) for name in ("brand", "description"))
        path = self._read_category(row)
        category = parse_text("category", path[-1], MAX_FIELD_LENGTHS["category"]) if path else None
        attributes = self._build_attributes(row)
        if self.layout is ICECAT:
            derived, attributes = normalise_icecat_attributes(attributes, title)
            category = category or derived
        words = build_product_words(title, brand, category, description, attributes)
        if len(path) > 1:
            attributes[CATEGORY_PATH] = parse_text("category", PATH_SEPARATOR.join(path), MAX_ATTRIBUTE_LENGTH)
        amount, currency = self._read_price(row, given)
        link = self._use("link", self._read_link, given.get("link"))
        rating = self._use("rating", self._read_rating, given.get("rating"))
        rating_count = self._use("rating_count", _read_rating_count, _find_count(given))
        return {
            "source": self.source,
            "source_id": self._read_id(given, brand, title, link),
            "title": title,
            "brand": brand,
            "category": category,
            "description": description,
            "price": amount,
            "currency": currency,
            "price_as_of": self._use("price_as_of", parse_date, given.get("price_as_of")),
            "rating": None if rating == rating_count == 0 else rating,  # No rating yet.
            "rating_count": rating_count,
            "attributes": attributes,
            "link": link or self._build_link(row, brand, title, currency),
            "words": words,
        }

    def _use(self, name: str, read: Any, value: Any) -> Any:
        """Return what `read` makes of an optional field; None, counted, if it cannot be used."""
        try:
            return read(value)
        except InvalidRowError:
            self.dropped[name] += 1
            return None

    def _choose_column(self, name: str, row: Mapping[str, Any]) -> str:
        columns = self.choices.get(name, ())
        if name == "price" and columns and EFFECTIVE_DATE in row and is_sale_over(row[EFFECTIVE_DATE]):
            columns = tuple(c for c in columns if known.normalise_heading(c) not in known.SALE_PRICES)
        stated = (column for column in columns if not _is_blank(row.get(column)))
        return next(stated, self.mapping[name])

    def _read_price(self, row: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Decimal | None, str | None]:
        column = self._choose_column("price", row) if "price" in self.mapping else ""
        currency = parse_currency(get_text_member(given.get("currency"))) or self.price_currencies.get(column)
        price = parse_price(given.get("price"), currency, self.currency, in_minor_units=self.in_minor_units)
        if price is not None and price[1] is None:
            raise InvalidRowError("the price has no currency")
        return price or (None, None)

    def _read_category(self, row: Mapping[str, Any]) -> list[str]:
        if "category" not in self.mapping:
            return []
        for column in self.choices.get("category") or (self.mapping["category"],):
            is_list = known.normalise_heading(column) in known.CATEGORY_LISTS
            path = split_category(row.get(column), is_list=is_list, slash_separates=self.slash_separates)
            if len(path) == 1 and self.subcategory is not None:
                below = split_category(row.get(self.subcategory))
                return path + below if below != path else path
            if path:
                return path
        return []

    def _read_id(self, given: Mapping[str, Any], brand: str | None, title: str, link: str | None) -> str:
        source_id = _parse_field(given, "source_id")
        if source_id is not None:
            return source_id
        column = self.mapping.get("source_id")
        if column is not None and known.normalise_heading(column) not in known.WEAK_IDS:
            raise InvalidRowError(f"{column} (the id) is empty")
        return hashlib.sha256("\n".join((brand or "", title, link or "")).encode()).hexdigest()[:32]

    def _read_link(self, value: Any) -> str | None:
        return parse_link(complete_link(value, self.link_base), MAX_FIELD_LENGTHS["link"])

    def _build_link(self, row: Mapping[str, Any], brand: str | None, title: str, currency: str | None) -> str:
        template = self.link_template
        if template and "{query}" not in template:
            own = fill_link(template, row)
            if own:
                return own
            template = None
        return build_store_link(template, brand, title, currency)

    def _read_rating(self, value: Any) -> Decimal | None:
        scale: Any = self.rating_scale
        if isinstance(value, dict):
            scale = value.get("bestRating") or scale
            value = next((value[name] for name in RATING_MEMBERS if value.get(name) is not None), None)
        if isinstance(value, str):
            match = RATING_PATTERN.fullmatch(value.strip())
            if match:
                scale = match[2] or (100 if match[3] else scale)
                value = match[1].replace(",", ".")
        best = parse_number("best rating", scale, 1, SCALES[-1]) or BEST_RATING
        rating = parse_number("rating", value, 0, int(best))
        return rating and (rating * BEST_RATING / best).quantize(CENT, ROUND_HALF_UP)

    def _build_attributes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        mapped = {column for name, column in self.mapping.items() if name != "attributes"}
        mapped.update(column for choice in self.choices.values() for column in choice)
        mapped.add(self.subcategory or "")
        given = row.get(self.mapping["attributes"]) if "attributes" in self.mapping else None
        columns = {name: value for name, value in row.items() if name not in mapped and value is not given}
        if self.layout is None or not self.layout.keeps_all_columns:
            columns = _select_told(columns)
        attributes: dict[str, Any] = {}
        for name, value in (*_iterate_scalars(columns), *_iterate_scalars(given if isinstance(given, dict) else {})):
            key = to_snake_case(ICECAT_PREFIX.sub("", name) if self.layout is ICECAT else name)
            attribute = parse_attribute_value(abbreviate(key), value, MAX_ATTRIBUTE_LENGTH)
            if key and attribute is not None:
                attributes[parse_text("the name of a column", key, MAX_FIELD_LENGTHS["brand"]) or key] = attribute
        if len(attributes) > MAX_ATTRIBUTES:
            raise InvalidRowError(f"more than {MAX_ATTRIBUTES:,} attributes")
        return attributes


def _select_told(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that say something about the product, and each option's value under the option's name."""
    told: dict[str, Any] = {}
    options: dict[str, dict[str, Any]] = {}
    for name, value in columns.items():
        option = known.parse_option_column(name)
        if option is not None:
            options.setdefault(option[0], {})[option[1]] = value
        elif known.is_untold(name) or is_about_sales(name):
            continue
        elif not (isinstance(value, str) and value.lower() in PRODUCT_TYPES):
            told[name] = value
    for pair in options.values():
        if pair.get("name") and pair.get("value") not in (None, "", "Default Title"):
            told.setdefault(str(pair["name"]), pair["value"])
    return told


def _is_blank(value: Any) -> bool:
    """Return whether a cell says that there is no value: it is empty, zero or a dash."""
    return value in (None, 0, [], {}) or (isinstance(value, str) and BLANK.fullmatch(value.strip()) is not None)


def _parse_field(given: Mapping[str, Any], name: str) -> str | None:
    value = get_text_member(given.get(name))
    if isinstance(value, dict | list):
        raise InvalidRowError(f"{name} is no text")
    return parse_text(name, value, MAX_FIELD_LENGTHS[name])


def _find_count(given: Mapping[str, Any]) -> Any:
    """Return the count of ratings: that of its column, else of the object that is the rating."""
    count, rating = given.get("rating_count"), given.get("rating")
    if count is None and isinstance(rating, dict):
        return next((rating[name] for name in COUNT_MEMBERS if rating.get(name) is not None), None)
    return count


def _read_rating_count(value: Any) -> int | None:
    if isinstance(value, str):
        value = re.sub(r"(?<=\d)[.\s](?=\d{3}\b)|\s*(?:ratings?|reviews?)$|[()+]", "", value.strip())
    count = parse_number("rating count", len(value) if isinstance(value, list) else value, 0, MAX_RATING_COUNT)
    return None if count is None else int(count)


def find_rating_scale(ratings: list[Any]) -> int:
    """Return the scale of these ratings: of 10 or of 100 if more than half are above the best of the smaller one."""
    numbers = []
    for rating in ratings:
        match = RATING_PATTERN.fullmatch(str(rating).strip())
        if match and not match[2] and not match[3]:
            numbers.append(Decimal(match[1].replace(",", ".")))
    for smaller, scale in zip(SCALES[::-1][1:], SCALES[::-1], strict=False):
        if sum(number > smaller for number in numbers) * 2 > len(numbers):
            return scale
    return BEST_RATING
