"""The product table, its word index, and the value types of the catalogue."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Computed, Date, Identity, Index, Numeric, Text, text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlmodel import Field, SQLModel

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
