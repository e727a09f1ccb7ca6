"""Relax criteria when nothing fits, find the nearest products and describe what they miss."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from shopassist.assistant.answering.wording import (
    describe_attribute,
    describe_bound,
    describe_price_limits,
    format_number,
)
from shopassist.assistant.parsing.vocabulary import VocabularyIndex
from shopassist.assistant.ranking import is_accessory, rank_products
from shopassist.catalog.attributes import BY_KEY, COLUMN_KEYS
from shopassist.catalog.criteria import Bound, Criteria, get_numeric_value
from shopassist.catalog.currencies import format_money
from shopassist.catalog.models import Product
from shopassist.catalog.ports import CatalogReader

MAX_COUNTED_PRODUCTS = 100
# One relaxation drops all limits on columns of products together.
RATING_OBSTACLE = "ratings"
Relaxation = tuple[str, str, dict[str, object]]
MAX_RELAXATIONS = 12
MAX_TERM_LOOKUPS = 8
MAX_NEAR_MISSES = 3


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A criterion without which `products` would fit."""

    name: str
    description: str
    products: tuple[Product, ...]

    @property
    def count(self) -> str:
        """The number of products as text."""
        count = len(self.products)
        return f"at least {count}" if count >= MAX_COUNTED_PRODUCTS else str(count)


@dataclass(slots=True)
class NearMissResult:
    """The criteria that prevent an answer, the nearest products, and the terms that no product has."""

    obstacles: list[Obstacle] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    unknown_terms: list[str] = field(default_factory=list)


async def find_unknown_terms(catalog: CatalogReader, criteria: Criteria) -> list[str]:
    """Return the terms that no product of the catalogue has."""
    return [term for term in criteria.terms[:MAX_TERM_LOOKUPS] if not await catalog.search(Criteria(terms=(term,)), 1)]


async def find_near_misses(
    catalog: CatalogReader, criteria: Criteria, names: VocabularyIndex, device_words: frozenset[str] | None
) -> NearMissResult:
    """Find products that fit without one criterion; else without all numbers; else of the same category only."""
    found = NearMissResult(unknown_terms=await find_unknown_terms(catalog, criteria))
    pool: dict[tuple[str, str], Product] = {}
    strict = criteria.model_copy(update={"category_words": None})
    for name, words, relaxed in _build_relaxations(strict, names, found.unknown_terms)[:MAX_RELAXATIONS]:
        products = [p for p in await catalog.search(relaxed, MAX_COUNTED_PRODUCTS) if not is_accessory(p, device_words)]
        if products:
            found.obstacles.append(Obstacle(name, words, tuple(products)))
            pool |= {p.key: p for p in products}
    for relaxed in (*_build_fallbacks(strict), *_build_fallbacks(criteria)):
        if pool:
            break
        products = await catalog.search(relaxed, MAX_COUNTED_PRODUCTS)
        pool = {p.key: p for p in products if not is_accessory(p, device_words)}
    order = {id(p): place for place, p in enumerate(rank_products(list(pool.values()), criteria))}
    by_distance = sorted(
        pool.values(), key=lambda p: (len(criteria.find_unmet(p)), _measure_distance(p, criteria), order[id(p)])
    )
    found.products = by_distance[:MAX_NEAR_MISSES]
    return found


def merge_near_misses(nears: Sequence[NearMissResult]) -> NearMissResult:
    """Combine the results of several alternatives: the obstacles that all share, all products, all unknown terms."""
    merged = NearMissResult()
    shared = set.intersection(*({obstacle.name for obstacle in near.obstacles} for near in nears))
    for obstacle in nears[0].obstacles:
        if obstacle.name in shared - {"terms"}:
            same = (other for near in nears for other in near.obstacles if other.name == obstacle.name)
            products = {p.key: p for other in same for p in other.products}
            merged.obstacles.append(replace(obstacle, products=tuple(products.values())))
    for near in nears:
        merged.products += near.products
        merged.unknown_terms += [term for term in near.unknown_terms if term not in merged.unknown_terms]
    return merged


def _build_relaxations(
    criteria: Criteria, names: VocabularyIndex, unknown: list[str]
) -> list[tuple[str, str, Criteria]]:
    """Return each hard criterion but the category: its name, its description, the criteria without it."""
    relaxations = [*_relax_numbers(criteria), *_relax_names(criteria, names, unknown)]
    return [(name, words, criteria.model_copy(update=update)) for name, words, update in relaxations]


def _relax_numbers(criteria: Criteria) -> list[Relaxation]:
    relaxations: list[Relaxation] = []
    rest: dict[str, object]
    if describe_price_limits(criteria):
        relaxations.append(
            ("price", f"the price {describe_price_limits(criteria)}", {"price_min": None, "price_max": None})
        )
    rated = [bound for bound in criteria.bounds if bound.name in COLUMN_KEYS]
    if rated:
        rest = {"bounds": tuple(bound for bound in criteria.bounds if bound not in rated)}
        relaxations.append((RATING_OBSTACLE, " and ".join(describe_bound(bound) for bound in rated), rest))
    for bound in criteria.bounds:
        if bound not in rated:
            rest = {"bounds": tuple(other for other in criteria.bounds if other is not bound)}
            relaxations.append((bound.name, describe_bound(bound), rest))
    return relaxations


def _relax_names(criteria: Criteria, names: VocabularyIndex, unknown: list[str]) -> list[Relaxation]:
    relaxations: list[Relaxation] = []
    rest: dict[str, object]
    if criteria.brands:
        brands = names.spell_brands(criteria.brands)
        relaxations.append(("brand", f"the brand {brands}", {"brands": ()}))
    for feature in criteria.features[0 if criteria.categories else 1 :]:
        rest = {"features": tuple(other for other in criteria.features if other is not feature)}
        relaxations.append((feature.name, feature.name, rest))
    if criteria.excluded_brands or criteria.excluded_features:
        excluded = [names.spell_brand(brand) for brand in criteria.excluded_brands]
        excluded += [feature.name for feature in criteria.excluded_features]
        rest = {"excluded_brands": (), "excluded_features": ()}
        relaxations.append(("without", f"leaving out {' and '.join(excluded)}", rest))
    if criteria.marketplace:
        relaxations.append(("marketplace", f"the shop {criteria.marketplace}", {"marketplace": None}))
    kept = tuple(term for term in criteria.terms if term not in unknown) if unknown else ()
    if criteria.terms and (criteria.categories or criteria.brands or kept):
        gone = [term for term in criteria.terms if term not in kept]
        relaxations.append(("terms", f"“{' '.join(gone)}”", {"terms": kept}))
    return relaxations


def _build_fallbacks(criteria: Criteria) -> Iterable[Criteria]:
    """Yield ever weaker criteria: without numbers, without features, with nothing but the category."""
    figures: dict[str, object] = {"price_min": None, "price_max": None, "bounds": ()}
    yield criteria.model_copy(update=figures)
    features: dict[str, object] = {"features": criteria.features[:1] if not criteria.categories else ()}
    if criteria.categories or criteria.brands:
        yield criteria.model_copy(update=figures | features | {"excluded_features": ()})
    if criteria.categories:
        everything: dict[str, object] = {"terms": (), "brands": (), "marketplace": None}
        yield criteria.model_copy(update=figures | features | everything)


def _measure_distance(product: Product, criteria: Criteria) -> Decimal:
    """Return the sum of the relative distances from the limits; every other unmet criterion counts 1."""
    total = Decimal(0)
    if criteria.price_min is not None or criteria.price_max is not None:
        same = product.currency == criteria.currency
        price = Bound(name="price", minimum=criteria.price_min, maximum=criteria.price_max)
        total += _relative_miss(product.price, price) if same else Decimal(1)
    for bound in criteria.bounds:
        total += _relative_miss(get_numeric_value(product, bound.name), bound)
    figures = {"price", "currency", *(bound.name for bound in criteria.bounds)}
    return total + sum(name not in figures for name in criteria.find_unmet(product))


def _relative_miss(value: object, bound: Bound) -> Decimal:
    if bound.is_met_by(value):
        return Decimal(0)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return Decimal(1)
    amount = Decimal(str(value))
    limit = bound.minimum if bound.minimum is not None and amount <= bound.minimum else bound.maximum
    return abs(amount - limit) / limit if limit else Decimal(1)


def describe_misses(product: Product, criteria: Criteria, names: VocabularyIndex) -> list[str]:
    """Describe every criterion that a product does not meet."""
    bounds = {
        bound.name: bound for bound in criteria.bounds if not bound.is_met_by(get_numeric_value(product, bound.name))
    }
    words = []
    for name in dict.fromkeys(criteria.find_unmet(product)):
        if name == "price" and product.currency != criteria.currency:
            continue
        if name in bounds:
            words.append(_describe_bound_miss(product, bounds[name]))
        else:
            words.append(_describe_other_miss(product, criteria, name, names))
    return words


def _describe_bound_miss(product: Product, bound: Bound) -> str:
    value = get_numeric_value(product, bound.name)
    if value is None or isinstance(value, bool | str):
        row = BY_KEY.get(bound.name)
        return (row and row.unknown) or f"{describe_bound(bound)} is not confirmed in its data"
    shown = format_number(value) if bound.name in COLUMN_KEYS else describe_attribute(bound.name, value)
    return f"{shown} instead of {describe_bound(bound)}"


def _describe_other_miss(product: Product, criteria: Criteria, name: str, names: VocabularyIndex) -> str:
    wanted = names.spell_brands(criteria.brands)
    known = {
        "price": _describe_price_miss(product, criteria),
        "currency": f"{_describe_price(product)}, which is not compared with {describe_price_limits(criteria)}",
        "brand": f"made by {product.brand or 'an unnamed maker'}" + (f" instead of {wanted}" if wanted else ""),
        "category": f"it is filed under {product.category or 'no category'}",
        "marketplace": f"not sold on {criteria.marketplace}",
    }
    if name.startswith("without "):
        return f"has {name.removeprefix('without ')}"
    return known.get(name, f"{name} is not stated")


def _describe_price(product: Product) -> str:
    if product.price is None or product.currency is None:
        return "price is not known"
    return f"priced in {product.currency} ({format_money(product.price, product.currency)})"


def _describe_price_miss(product: Product, criteria: Criteria) -> str:
    if product.price is None or product.currency is None:
        return "price is not known"
    price = format_money(product.price, product.currency)
    if criteria.price_max is not None and product.price > criteria.price_max:
        return f"{price}, which is {format_money(product.price - criteria.price_max, product.currency)} over the limit"
    if criteria.price_min is not None and product.price < criteria.price_min:
        return f"{price}, which is {format_money(criteria.price_min - product.price, product.currency)} below the range"
    return f"{price} does not fit"
