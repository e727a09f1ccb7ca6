"""Which column of a foreign catalogue is which field: guessed, shown, and overridden by the owner."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shopassist.errors import InvalidInputError

SYNONYMS = {
    "source_id": ("source_id", "id", "product_id", "item_id", "asin", "sku", "uniq_id", "gtin", "ean"),
    "title": ("title", "product_title", "product_name", "item_name", "name"),
    "brand": ("brand", "brand_name", "supplier", "manufacturer", "vendor", "make"),
    "category": ("category", "category_name", "product_category", "main_category", "department"),
    "description": (
        "description",
        "product_description",
        "long_description",
        "short_description",
        "about_product",
        "about",
        "summary",
    ),
    "price": (
        "price",
        "current_price",
        "sale_price",
        "selling_price",
        "discounted_price",
        "final_price",
        "actual_price",
        "mrp",
    ),
    "currency": ("currency", "currency_code", "price_currency"),
    "price_as_of": ("price_as_of", "price_date"),
    "rating": ("rating", "average_rating", "avg_rating", "stars", "review_rating"),
    "rating_count": (
        "rating_count",
        "ratings_count",
        "review_count",
        "reviews_count",
        "num_reviews",
        "number_of_reviews",
        "no_of_ratings",
        "reviews",
    ),
    "link": ("link", "url", "product_url", "product_link", "href"),
    "attributes": ("attributes", "specifications", "specs"),
}
LISTED_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Layout:
    """A known shape of file: what its columns do not say. `signature` are columns that only this shape has."""

    name: str
    signature: frozenset[str]
    currency: str
    minor: bool = False


ICECAT = Layout("ICEcat open catalogue", frozenset({"supplier", "short_description", "img_500x500"}), "USD", minor=True)
DUMMYJSON = Layout("DummyJSON", frozenset({"discountPercentage", "availabilityStatus", "thumbnail"}), "USD")
LAYOUTS = (ICECAT, DUMMYJSON)


def layout_of(columns: Mapping[str, Any] | Sequence[str]) -> Layout | None:
    """The known shape that has these columns."""
    return next((layout for layout in LAYOUTS if layout.signature.issubset(columns)), None)


@lru_cache(maxsize=10_000)
def snake(name: str) -> str:
    """`name` as the key of an attribute: "warrantyInformation" and "Warranty information" are both one."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", spaced).strip("_").lower()


def mapping_of(columns: Sequence[str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Field → column, the owner's `overrides` first, the rest guessed from the names.

    Raises `InvalidInputError` for an override that names no field or no column, or when there is no title.
    """
    for field, column in overrides.items():
        if field not in SYNONYMS:
            raise InvalidInputError(f"--map: there is no field {field!r}; the fields are {', '.join(SYNONYMS)}.")
        if column not in columns:
            raise InvalidInputError(f"--map: the file has no column {column!r}; it has {_some(columns)}.")
    taken = set(overrides.values())
    by_name = {snake(column): column for column in reversed(columns) if column not in taken}
    mapping = dict(overrides)
    for field, names in SYNONYMS.items():
        guess = next((by_name[name] for name in names if name in by_name), None)
        if field not in mapping and guess is not None:
            mapping[field] = guess
    if "title" not in mapping:
        raise InvalidInputError(f"No column looks like a title: name it by --map title=COLUMN. Seen: {_some(columns)}.")
    return {field: mapping[field] for field in SYNONYMS if field in mapping}


def _some(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:LISTED_COLUMNS])
    return f"{shown} …" if len(columns) > LISTED_COLUMNS else shown or "none"
