"""Search criteria, and the predicate that decides whether a product meets them."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from shopassist.catalog.attributes import COLUMN_KEYS
from shopassist.catalog.models import Product, words_of


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

    def is_met_by(self, value: object) -> bool:
        """Return whether `value` is a number within the limits."""
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return False
        number = Decimal(str(value))
        if self.exclusive:
            return (self.minimum is None or number > self.minimum) and (self.maximum is None or number < self.maximum)
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
    category_words: Feature | None = Field(default=None, description="unused without `categories`")
    excluded_categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    excluded_brands: tuple[str, ...] = ()
    price_min: Decimal | None = None
    price_max: Decimal | None = None
    currency: str | None = Field(default=None, description="ISO 4217")
    bounds: tuple[Bound, ...] = ()
    features: tuple[Feature, ...] = ()
    excluded_features: tuple[Feature, ...] = ()
    marketplace: str | None = None
    terms: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    sort_order: SortOrder = SortOrder.RELEVANCE

    def find_unmet(self, product: Product) -> list[str]:
        """Return the names of the hard criteria that `product` does not meet.

        Names are `category`, `brand`, `currency`, `price`, the name of a bound or a feature, `without <feature>`,
        `marketplace`, and a term itself.
        """
        words = frozenset(product.words)
        return [
            *(name for name, is_met in self._check_identity(product) if not is_met),
            *(bound.name for bound in self.bounds if not bound.is_met_by(get_numeric_value(product, bound.name))),
            *(f.name for f in self.features if not f.is_met_by(words, product.attributes)),
            *(f"without {f.name}" for f in self.excluded_features if f.is_met_by(words, product.attributes)),
            *(term for term in self.terms if not words.issuperset(words_of(term))),
        ]

    def _check_identity(self, product: Product) -> list[tuple[str, bool]]:
        category, brand = (product.category or "").lower(), (product.brand or "").lower()
        is_limited = self.price_min is not None or self.price_max is not None
        is_of_category = not self.categories or category in self.categories or self._states_category(product)
        return [
            ("category", is_of_category and category not in self.excluded_categories),
            ("brand", (not self.brands or brand in self.brands) and (not brand or brand not in self.excluded_brands)),
            ("currency", not (is_limited and self.currency) or product.currency == self.currency),
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


def get_numeric_value(product: Product, name: str) -> object:
    """Return the value that a bound of this name limits; None if the product does not state it."""
    return getattr(product, name) if name in COLUMN_KEYS else product.attributes.get(name)
