"""The product table, its words, and the search criteria that a product meets or does not meet."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from difflib import SequenceMatcher, get_close_matches
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import BigInteger, CheckConstraint, Column, Computed, Date, Identity, Index, Numeric, Text, text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlmodel import Field, SQLModel

from shopassist.catalog.attributes import COLUMN_KEYS
from shopassist.db.columns import private_timestamp_column

WORD = re.compile(r"[^\W_]+(?:\.\d+)?")
SHORTEST_PLURAL = 4


def words_of(text: str) -> list[str]:
    """Return the words of a text in order: lower case, no accents, singular ("Cases" and "case" are one word)."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in plain if not unicodedata.combining(c))
    return [_singular(word) for word in WORD.findall(bare)]


def _singular(word: str) -> str:
    if len(word) < SHORTEST_PLURAL or not word.isalpha():
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


ACCENTED_LETTERS, PLAIN_LETTERS = "àáâãäåçèéêëìíîïñòóôõöùúûüýÿ", "aaaaaaceeeeiiiinooooouuuuyy"
# Split joined words and drop accents as `words_of` does; else PostgreSQL reads "TN-2110" as the number -2110.
SEARCH_VECTOR_TEMPLATE = (
    f"to_tsvector('english'::regconfig, translate(lower(%s), '-/_{ACCENTED_LETTERS}', '   {PLAIN_LETTERS}'))"
)
SEARCH_VECTOR = " || ".join(
    f"setweight({SEARCH_VECTOR_TEMPLATE % content}, '{weight}')"
    for weight, content in (
        ("A", "title"),
        ("B", "coalesce(brand, '') || ' ' || coalesce(category, '')"),
        ("C", "coalesce(description, '')"),
    )
)
BRAND_KEY = "lower(coalesce(brand, ''))"
CATEGORY_KEY = "lower(coalesce(category, ''))"
ABSENT_VALUES = frozenset({"no", "none", "not available", "n/a", "not supported", ""})
MAX_INDEXED_WORD_LENGTH = 100
NEAREST_WORD_CUTOFF = 0.75
MIN_CORRECTED_LENGTH = 4


class Product(SQLModel, table=True):
    """One product of one source. `price` and `currency` are both set or both None.

    `attributes` holds JSON numbers, booleans and strings under keys that name their unit (see `attributes.py`).
    `words` are the words of all fields, for exact matching of features.
    """

    __tablename__ = "products"
    __table_args__ = (
        Unique("source", "source_id", name="uq_products_source_source_id"),
        CheckConstraint("(price IS NULL) = (currency IS NULL)", name="ck_products_price_currency"),
        CheckConstraint("price > 0", name="ck_products_price"),
        CheckConstraint("rating BETWEEN 0 AND 5", name="ck_products_rating"),
        Index("ix_products_search", "search", postgresql_using="gin"),
        Index("ix_products_words", "words", postgresql_using="gin"),
        Index("ix_products_title_trigram", "title", postgresql_using="gin", postgresql_ops={"title": "gin_trgm_ops"}),
        Index("ix_products_brand", text(BRAND_KEY)),
        Index("ix_products_category", text(CATEGORY_KEY), "price", "currency"),
        Index("ix_products_price", "price", "currency"),
        Index("ix_products_currency", "currency"),
        Index("ix_products_rating", text("rating DESC NULLS LAST"), text("rating_count DESC NULLS LAST"), "id"),
    )

    id: int | None = Field(
        default=None, exclude=True, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    source: str = Field(max_length=64)
    source_id: str = Field(max_length=255)
    title: str = Field(sa_type=Text)
    brand: str | None = Field(default=None, sa_type=Text)
    category: str | None = Field(default=None, sa_type=Text)
    description: str | None = Field(default=None, sa_type=Text)
    price: Decimal | None = Field(default=None, sa_type=Numeric(12, 2))
    currency: str | None = Field(default=None, max_length=3)
    price_as_of: date | None = Field(default=None, sa_type=Date)
    rating: Decimal | None = Field(default=None, sa_type=Numeric(3, 2))
    rating_count: int | None = None
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    link: str = Field(sa_type=Text)
    words: list[str] = Field(default_factory=list, exclude=True, sa_type=ARRAY(Text))
    search: Any = Field(default=None, exclude=True, sa_column=Column(TSVECTOR, Computed(SEARCH_VECTOR, persisted=True)))
    created_at: datetime = private_timestamp_column()
    updated_at: datetime = private_timestamp_column()

    @property
    def key(self) -> tuple[str, str]:
        """Source and id within the source."""
        return self.source, self.source_id


def build_product_words(
    title: str, brand: str | None, category: str | None, description: str | None, attributes: Mapping[str, Any]
) -> list[str]:
    """Return the value of `Product.words`: each word once, sorted, without words too long for an index."""
    texts = [title, brand or "", category or "", description or ""]
    texts += [_attribute_text(key, value) for key, value in attributes.items()]
    return sorted({word for word in words_of("\n".join(texts)) if len(word) <= MAX_INDEXED_WORD_LENGTH})


def is_correctable(word: str) -> bool:
    """Return whether a word can be taken for a misspelling: only letters, and not too short."""
    return word.isalpha() and len(word) >= MIN_CORRECTED_LENGTH


def find_nearest_word(word: str, titles: Iterable[str]) -> str | None:
    """Return the word of these titles that `word` may be a misspelling of; of equally near words the most frequent."""
    frequency = Counter(found for title in titles for found in words_of(title))
    close = get_close_matches(word, frequency, n=5, cutoff=NEAREST_WORD_CUTOFF)
    return max(close, key=lambda found: (SequenceMatcher(None, word, found).ratio(), frequency[found]), default=None)


def _attribute_text(key: str, value: Any) -> str:
    if value is None or value is False or str(value).strip().lower() in ABSENT_VALUES:
        return ""
    name = key.replace("_", " ")
    return name if value is True else f"{name} {value}"


STORED_FIELDS = tuple(f for f in Product.model_fields if f not in {"id", "search", "created_at", "updated_at"})
"""Fields that an import sets."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All categories, brands and currencies of the catalogue, as spelled there."""

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    currencies: tuple[str, ...] = ()


@dataclass(slots=True)
class UpsertCount:
    """How many rows an upsert inserted, updated and left unchanged."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0


class SortOrder(StrEnum):
    """The order that the shopper asked for."""

    RELEVANCE = "relevance"
    CHEAPEST = "cheapest"
    MOST_EXPENSIVE = "most_expensive"
    BEST_RATED = "best_rated"


class Bound(BaseModel):
    """Limits on a numeric attribute, or on a column of the same name; inclusive unless `exclusive`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    exclusive: bool = False

    def is_met_by(self, number: Decimal | None) -> bool:
        """Return whether `number` is within the limits."""
        if number is None or (self.exclusive and number in {self.minimum, self.maximum}):
            return False
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)


class Feature(BaseModel):
    """Something that a product must state in any one of several wordings ("waterproof": "waterproof", "IP68" …).

    A product with a false attribute `denying_attribute` does not have it, even if its description contains the words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    wordings: tuple[str, ...]
    denying_attribute: str | None = None

    def split_wordings(self) -> list[list[str]]:
        """Return the words of each wording. A product states the feature if it has all words of one of them."""
        return _split_wordings(self.wordings)

    def is_met_by(self, words: frozenset[str], attributes: Mapping[str, object]) -> bool:
        """Return whether a product with these words and attributes states the feature."""
        if self.denying_attribute is not None and attributes.get(self.denying_attribute) is False:
            return False
        return any(words.issuperset(wording) for wording in self.split_wordings())


@lru_cache(maxsize=1024)
def _split_wordings(wordings: tuple[str, ...]) -> list[list[str]]:
    return [words_of(wording) for wording in wordings]


class Criteria(BaseModel):
    """A question as criteria: all are hard but `preferences` and `sort_order`.

    `categories` and `brands` hold alternatives in lower case. A product without a category is of these `categories` if
    its words state `category_words`. A product must have every one of `terms`: names of a model, a series or a kind of
    product without a category. `preferences` only rank products. Price limits are inclusive and in `currency`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    categories: tuple[str, ...] = ()
    category_words: Feature | None = None
    excluded_categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    excluded_brands: tuple[str, ...] = ()
    price_min: Decimal | None = None
    price_max: Decimal | None = None
    currency: str | None = None
    bounds: tuple[Bound, ...] = ()
    features: tuple[Feature, ...] = ()
    excluded_features: tuple[Feature, ...] = ()
    marketplace: str | None = None
    terms: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    sort_order: SortOrder = SortOrder.RELEVANCE

    @property
    def has_price_limit(self) -> bool:
        """Whether the price is limited."""
        return self.price_min is not None or self.price_max is not None

    def find_unmet(self, product: Product) -> list[str]:
        """Return the names of the hard criteria that `product` does not meet.

        Names are `category`, `brand`, `currency`, `price`, the name of a bound or a feature, `without <feature>`,
        `marketplace`, and a term itself.
        """
        words = frozenset(product.words)
        return [
            *(name for name, is_met in self._check_identity(product) if not is_met),
            *(bound.name for bound in self.bounds if not bound.is_met_by(get_number(product, bound.name))),
            *(f.name for f in self.features if not f.is_met_by(words, product.attributes)),
            *(f"without {f.name}" for f in self.excluded_features if f.is_met_by(words, product.attributes)),
            *(term for term in self.terms if not words.issuperset(words_of(term))),
        ]

    def _check_identity(self, product: Product) -> list[tuple[str, bool]]:
        category, brand = (product.category or "").lower(), (product.brand or "").lower()
        is_of_category = not self.categories or category in self.categories or self._states_category(product)
        return [
            ("category", is_of_category and category not in self.excluded_categories),
            ("brand", (not self.brands or brand in self.brands) and (not brand or brand not in self.excluded_brands)),
            ("currency", not (self.has_price_limit and self.currency) or product.currency == self.currency),
            ("price", product.price is not None and self._is_in_price_range(product.price)),
            ("marketplace", not self.marketplace or self.marketplace.lower() in product.link.lower().split("/")[2]),
        ]

    def _states_category(self, product: Product) -> bool:
        if product.category or self.category_words is None:
            return False
        return self.category_words.is_met_by(frozenset(product.words), product.attributes)

    def _is_in_price_range(self, price: Decimal) -> bool:
        return (self.price_min is None or price >= self.price_min) and (
            self.price_max is None or price <= self.price_max
        )


def get_number(product: Product, name: str) -> Decimal | None:
    """Return the number that a bound of this name limits; None if the product does not state one."""
    value = getattr(product, name) if name in COLUMN_KEYS else product.attributes.get(name)
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return Decimal(str(value)) if is_number else None
