"""Search criteria and the one predicate that decides whether a product meets them."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from shopassist.catalog.attributes import COLUMN_KEYS
from shopassist.catalog.models import Product, words_of


class SortOrder(StrEnum):
    """What the shopper asked to see first."""

    RELEVANCE = "relevance"
    CHEAPEST = "cheapest"
    MOST_EXPENSIVE = "most_expensive"
    BEST_RATED = "best_rated"


class Bound(BaseModel):
    """Limits, inclusive unless said, on a number: `rating`, `rating_count` or a numeric attribute (`ram_gb`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    exclusive: bool = False

    def is_met_by(self, value: object) -> bool:
        """Whether `value` is a number within the limits."""
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return False
        number = Decimal(str(value))
        if self.exclusive:
            return (self.minimum is None or number > self.minimum) and (self.maximum is None or number < self.maximum)
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)


class Feature(BaseModel):
    """Something a product must state, in any one of several wordings ("waterproof": "waterproof", "IP68" …).

    A product whose attribute `attribute` is false does not have it, whatever its description says ("without …").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    wordings: tuple[str, ...]
    denying_attribute: str | None = None

    def split_wordings(self) -> list[list[str]]:
        """The words of each wording: a product that has all words of one of them states the feature."""
        return _split_wordings(self.wordings)

    def is_met_by(self, words: frozenset[str], attributes: Mapping[str, object]) -> bool:
        """Whether a product with these words and attributes states the feature."""
        if self.denying_attribute is not None and attributes.get(self.denying_attribute) is False:
            return False
        return any(words.issuperset(wording) for wording in self.split_wordings())


@lru_cache(maxsize=1024)
def _split_wordings(wordings: tuple[str, ...]) -> list[list[str]]:
    return [words_of(wording) for wording in wordings]


class Criteria(BaseModel):
    """What was asked, read into hard criteria (all but `wishes` and `order`) and preferences.

    `terms` are words that name the thing itself (a model, a series, a kind of product without a category of its own):
    a product must have every one. `wishes` only move products up. `categories`, `brands` hold alternatives, lower
    case; a product without a category is of these `categories` when its words state `kind`. Prices are in `currency`,
    both limits inclusive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    categories: tuple[str, ...] = ()
    category_words: Feature | None = Field(
        default=None, description="the wordings of `categories`; without them, unused"
    )
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
        """The names of the hard criteria that `product` does not meet; empty for an answer.

        Names are `category`, `brand`, `currency`, `price`, the name of a bound, of a feature, `without <feature>`,
        `marketplace`, and a term itself.
        """
        words = frozenset(product.words)
        missed = [name for name, met in self._identity(product) if not met]
        missed += [bound.name for bound in self.bounds if not bound.is_met_by(get_numeric_value(product, bound.name))]
        missed += [feature.name for feature in self.features if not feature.is_met_by(words, product.attributes)]
        missed += [
            f"without {feature.name}"
            for feature in self.excluded_features
            if feature.is_met_by(words, product.attributes)
        ]
        missed += [term for term in self.terms if not words.issuperset(words_of(term))]
        return missed

    def _identity(self, product: Product) -> list[tuple[str, bool]]:
        category, brand = (product.category or "").lower(), (product.brand or "").lower()
        priced = self.price_min is not None or self.price_max is not None
        return [
            (
                "category",
                (not self.categories or category in self.categories or self._states_kind(product))
                and category not in self.excluded_categories,
            ),
            ("brand", (not self.brands or brand in self.brands) and (not brand or brand not in self.excluded_brands)),
            ("currency", not (priced and self.currency) or product.currency == self.currency),
            ("price", product.price is not None and self._is_in_price_range(product.price)),
            ("marketplace", not self.marketplace or self.marketplace.lower() in product.link.lower().split("/")[2]),
        ]

    def _states_kind(self, product: Product) -> bool:
        return (
            not product.category
            and self.category_words is not None
            and self.category_words.is_met_by(frozenset(product.words), product.attributes)
        )

    def _is_in_price_range(self, price: Decimal) -> bool:
        return (self.price_min is None or price >= self.price_min) and (
            self.price_max is None or price <= self.price_max
        )


def get_numeric_value(product: Product, name: str) -> object:
    """The number a bound of this name speaks of, or None where the product does not state it."""
    if name in COLUMN_KEYS:
        return getattr(product, name)
    return product.attributes.get(name)
