"""Why nothing fits, and what comes nearest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from shopassist.assistant.describe import RATINGS, bound_words, price_words
from shopassist.assistant.names import Names
from shopassist.assistant.port import Catalog
from shopassist.assistant.ranking import is_accessory, ranked
from shopassist.models.catalog import Product
from shopassist.models.criteria import Bound, Criteria, number_of

SEARCHED = 100
Relaxation = tuple[str, str, dict[str, object]]
MOST_QUERIES = 12
MOST_TERMS = 8
MOST = 3


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A criterion without which products would fit: its words, how many there are, whether the fact is unknown."""

    name: str
    words: str
    products: tuple[Product, ...]

    @property
    def count(self) -> str:
        """How many would fit, as far as they were counted."""
        return f"at least {SEARCHED}" if len(self.products) >= SEARCHED else str(len(self.products))


@dataclass(slots=True)
class Nearest:
    """What stands in the way, and the products that miss least."""

    obstacles: list[Obstacle] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Words that were asked for and that no product states."""


async def unknown_terms(catalog: Catalog, criteria: Criteria) -> list[str]:
    """The terms that no product of the catalogue states."""
    return [term for term in criteria.terms[:MOST_TERMS] if not await catalog.search(Criteria(terms=(term,)), 1)]


async def nearest(catalog: Catalog, criteria: Criteria, names: Names, said: frozenset[str] | None) -> Nearest:
    """What would fit if one criterion were dropped, or else all figures, or else everything but the kind."""
    found = Nearest(unknown=await unknown_terms(catalog, criteria))
    pool: dict[tuple[str, str], Product] = {}
    filed = criteria.model_copy(update={"kind": None})
    for name, words, relaxed in _relaxations(filed, names, found.unknown)[:MOST_QUERIES]:
        products = [p for p in await catalog.search(relaxed, SEARCHED) if not is_accessory(p, said)]
        if products:
            found.obstacles.append(Obstacle(name, words, tuple(products)))
            pool |= {(p.source, p.source_id): p for p in products}
    for relaxed in (*_last_resorts(filed), *_last_resorts(criteria)):
        if pool:
            break
        products = await catalog.search(relaxed, SEARCHED)
        pool = {(p.source, p.source_id): p for p in products if not is_accessory(p, said)}
    order = {id(p): place for place, p in enumerate(ranked(list(pool.values()), criteria))}
    by_distance = sorted(pool.values(), key=lambda p: (len(criteria.misses(p)), _distance(p, criteria), order[id(p)]))
    found.products = by_distance[:MOST]
    return found


def merged_reasons(nears: Sequence[Nearest]) -> Nearest:
    """Why none of several products fits: what stands in the way of each of them, and the words that nothing states."""
    merged = Nearest()
    shared = set.intersection(*({obstacle.name for obstacle in near.obstacles} for near in nears))
    for obstacle in nears[0].obstacles:
        if obstacle.name in shared - {"terms"}:
            same = (other for near in nears for other in near.obstacles if other.name == obstacle.name)
            products = {(p.source, p.source_id): p for other in same for p in other.products}
            merged.obstacles.append(replace(obstacle, products=tuple(products.values())))
    for near in nears:
        merged.products += near.products
        merged.unknown += [term for term in near.unknown if term not in merged.unknown]
    return merged


def _relaxations(criteria: Criteria, names: Names, unknown: list[str]) -> list[tuple[str, str, Criteria]]:
    """Each hard criterion but the kind of product: its name, its words, the criteria without it."""
    ways = [*_without_figures(criteria), *_without_names(criteria, names, unknown)]
    return [(name, words, criteria.model_copy(update=update)) for name, words, update in ways]


def _without_figures(criteria: Criteria) -> list[Relaxation]:
    ways: list[Relaxation] = []
    rest: dict[str, object]
    if price_words(criteria):
        ways.append(("price", f"the price {price_words(criteria)}", {"price_min": None, "price_max": None}))
    rated = [bound for bound in criteria.bounds if bound.name in RATINGS]
    if rated:
        rest = {"bounds": tuple(bound for bound in criteria.bounds if bound not in rated)}
        ways.append(("rating", " and ".join(bound_words(bound) for bound in rated), rest))
    for bound in criteria.bounds:
        if bound not in rated:
            rest = {"bounds": tuple(other for other in criteria.bounds if other is not bound)}
            ways.append((bound.name, bound_words(bound), rest))
    return ways


def _without_names(criteria: Criteria, names: Names, unknown: list[str]) -> list[Relaxation]:
    ways: list[Relaxation] = []
    rest: dict[str, object]
    if criteria.brands:
        brands = " or ".join(names.spelling.get(brand, brand) for brand in criteria.brands)
        ways.append(("brand", f"the brand {brands}", {"brands": ()}))
    for feature in criteria.features[0 if criteria.categories else 1 :]:
        rest = {"features": tuple(other for other in criteria.features if other is not feature)}
        ways.append((feature.name, feature.name, rest))
    if criteria.excluded_brands or criteria.excluded_features:
        ruled_out = [names.spelling.get(brand, brand) for brand in criteria.excluded_brands]
        ruled_out += [feature.name for feature in criteria.excluded_features]
        rest = {"excluded_brands": (), "excluded_features": ()}
        ways.append(("without", f"leaving out {' and '.join(ruled_out)}", rest))
    if criteria.marketplace:
        ways.append(("marketplace", f"the shop {criteria.marketplace}", {"marketplace": None}))
    kept = tuple(term for term in criteria.terms if term not in unknown) if unknown else ()
    if criteria.terms and (criteria.categories or criteria.brands or kept):
        gone = [term for term in criteria.terms if term not in kept]
        ways.append(("terms", f"“{' '.join(gone)}”", {"terms": kept}))
    return ways


def _last_resorts(criteria: Criteria) -> Iterable[Criteria]:
    """Ever less: without figures, without features, without all but the kind of product."""
    figures: dict[str, object] = {"price_min": None, "price_max": None, "bounds": ()}
    yield criteria.model_copy(update=figures)
    features: dict[str, object] = {"features": criteria.features[:1] if not criteria.categories else ()}
    if criteria.categories or criteria.brands:
        yield criteria.model_copy(update=figures | features | {"excluded_features": ()})
    if criteria.categories:
        everything: dict[str, object] = {"terms": (), "brands": (), "marketplace": None}
        yield criteria.model_copy(update=figures | features | everything)


def _distance(product: Product, criteria: Criteria) -> Decimal:
    """How far off the figures are, as shares of the limits; an unknown figure counts as wholly missed."""
    total = Decimal(0)
    if criteria.price_min is not None or criteria.price_max is not None:
        same = product.currency == criteria.currency
        price = Bound(name="price", minimum=criteria.price_min, maximum=criteria.price_max)
        total += _share(product.price, price) if same else Decimal(1)
    for bound in criteria.bounds:
        total += _share(number_of(product, bound.name), bound)
    figures = {"price", "currency", *(bound.name for bound in criteria.bounds)}
    return total + sum(name not in figures for name in criteria.misses(product))


def _share(value: object, bound: Bound) -> Decimal:
    if bound.holds(value):
        return Decimal(0)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return Decimal(1)
    amount = Decimal(str(value))
    limit = bound.minimum if bound.minimum is not None and amount <= bound.minimum else bound.maximum
    return abs(amount - limit) / limit if limit else Decimal(1)
