"""One row of a foreign catalogue to one product."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from shopassist.models import Product
from shopassist.models.catalog import words_of_product
from shopassist.ops import catalog_icecat
from shopassist.ops.catalog_columns import ICECAT, Layout, snake
from shopassist.ops.catalog_prices import CENT, currency_of, price_of
from shopassist.ops.catalog_values import Refused, day_of, fact_of, link_of, number_of, plain, shown, store_link

LONGEST = {"source_id": 255, "title": 1_000, "brand": 200, "category": 200, "description": 20_000, "link": 2_000}
LONGEST_FACT = 10_000
MOST_FACTS = 2_000
FLATTENED = frozenset({"dimensions"})
ADDRESS = re.compile(r"(?:https?:)?//\S+", re.IGNORECASE)
STARS = re.compile(r"\s*(?:out of 5.*|/\s*5|stars?)\s*$", re.IGNORECASE)
HIGHEST_COUNT = 2**31 - 1


@dataclass(frozen=True)
class RowReader:
    """Turns rows into products of `source`. `currency` and `minor` hold where a row does not say otherwise."""

    source: str
    mapping: Mapping[str, str]
    layout: Layout | None = None
    currency: str | None = None
    minor: bool = False
    link_template: str | None = None

    def product(self, row: Mapping[str, Any]) -> Product:
        """Raises `Refused` with the reason."""
        title = self._text(row, "title")
        if title is None:
            raise Refused("title is empty")
        brand, category, description = (self._text(row, name) for name in ("brand", "category", "description"))
        attributes = self._attributes(row)
        if self.layout is ICECAT:
            derived, attributes = catalog_icecat.canonical(attributes, title)
            category = category or derived
        price, currency = self._price(row)
        link = link_of(self._value(row, "link"), LONGEST["link"])
        return Product(
            source=self.source,
            source_id=self._source_id(row, brand, title, link),
            title=title,
            brand=brand,
            category=category,
            description=description,
            price=price,
            currency=currency,
            price_as_of=day_of(self._value(row, "price_as_of")),
            rating=self._rating(row),
            rating_count=self._rating_count(row),
            attributes=attributes,
            link=link or store_link(self.link_template, brand, title, currency),
            words=words_of_product(title, brand, category, description, attributes),
        )

    def _value(self, row: Mapping[str, Any], field: str) -> Any:
        return row.get(self.mapping[field]) if field in self.mapping else None

    def _text(self, row: Mapping[str, Any], field: str) -> str | None:
        value = self._value(row, field)
        if isinstance(value, dict | list):
            raise Refused(f"{field} is no text")
        return plain(field, value, LONGEST[field])

    def _source_id(self, row: Mapping[str, Any], brand: str | None, title: str, link: str | None) -> str:
        """The id of the row; a fingerprint of what names the product where the file has no ids."""
        if "source_id" not in self.mapping:
            return hashlib.sha256("\n".join((brand or "", title, link or "")).encode()).hexdigest()[:32]
        given = self._text(row, "source_id")
        if given is None:
            raise Refused(f"{self.mapping['source_id']} (the id) is empty")
        return given

    def _price(self, row: Mapping[str, Any]) -> tuple[Decimal | None, str | None]:
        stated = currency_of(self._value(row, "currency"))
        found = price_of(self._value(row, "price"), stated, self.currency, minor=self.minor)
        if found is None:
            return None, None
        if found[1] is None:
            raise Refused("the price has no currency")
        return found

    def _rating(self, row: Mapping[str, Any]) -> Decimal | None:
        value = self._value(row, "rating")
        rating = number_of("rating", STARS.sub("", value) if isinstance(value, str) else value, 0, 5)
        return rating and rating.quantize(CENT, ROUND_HALF_UP)

    def _rating_count(self, row: Mapping[str, Any]) -> int | None:
        value = self._value(row, "rating_count")
        count = number_of("rating count", len(value) if isinstance(value, list) else value, 0, HIGHEST_COUNT)
        return None if count is None else int(count)

    def _attributes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        mapped = {column for field, column in self.mapping.items() if field != "attributes"}
        given = self._value(row, "attributes")
        columns = {name: value for name, value in row.items() if name not in mapped and value is not given}
        facts: dict[str, Any] = {}
        for name, value in [*_pairs(columns), *_pairs(given if isinstance(given, dict) else {})]:
            key = snake(catalog_icecat.PREFIX.sub("", name) if self.layout is ICECAT else name)
            fact = fact_of(shown(key), value, LONGEST_FACT)
            if key and fact is not None:
                facts[plain("the name of a column", key, LONGEST["brand"]) or key] = fact
        if len(facts) > MOST_FACTS:
            raise Refused(f"more than {MOST_FACTS:,} attributes")
        return facts


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names with the scalar values that say something to a reader: no addresses, no nested records."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _pairs(value) if name in FLATTENED else []
        elif isinstance(value, list):
            scalars = [str(entry) for entry in value if isinstance(entry, str | int | float) and not _is_address(entry)]
            pairs.append((name, ", ".join(scalars)))
        elif not _is_address(value):
            pairs.append((name, value))
    return pairs


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and ADDRESS.fullmatch(value.strip()) is not None
