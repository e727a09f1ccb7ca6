"""When nothing fits: correct the spelling, relax criteria, and describe what the nearest products miss."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from difflib import SequenceMatcher, get_close_matches

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.assistant.ranking import get_device_words, is_accessory, rank_products
from shopassist.assistant.wording import (
    describe_attribute,
    describe_bound,
    describe_price_limits,
    format_number,
)
from shopassist.catalog.attributes import BY_KEY, COLUMN_KEYS, PREFERENCES
from shopassist.catalog.currencies import format_money
from shopassist.catalog.models import Bound, Criteria, Product, get_number, words_of
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import Transactions
from shopassist.query.models import ConversationContext

Catalog = Transactions[CatalogRepositories]
"""Each search is a transaction of its own, so that no connection is held in between."""

MAX_COUNTED_PRODUCTS = 100
# One relaxation drops all limits on columns of products together.
RATING_OBSTACLE = "ratings"
Relaxation = tuple[str, str, dict[str, object]]
"""The name of an obstacle, its description, and the criteria without it."""
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


async def search_catalog(catalog: Catalog, criteria: Criteria, limit: int) -> list[Product]:
    """Return products that meet the criteria."""
    return await catalog.run(lambda work: work.catalog.search(criteria, limit), repeatable=True)


async def find_unknown_terms(catalog: Catalog, terms: Sequence[str]) -> list[str]:
    """Return those of the first terms that no product of the catalogue has."""
    return [t for t in terms[:MAX_TERM_LOOKUPS] if not await search_catalog(catalog, Criteria(terms=(t,)), 1)]


async def find_near_misses(catalog: Catalog, criteria: Criteria, names: VocabularyIndex) -> NearMissResult:
    """Find products that fit without one criterion; else without all numbers; else of the same category only."""
    device_words = get_device_words(criteria)

    async def search(relaxed: Criteria) -> dict[tuple[str, str], Product]:
        products = await search_catalog(catalog, relaxed, MAX_COUNTED_PRODUCTS)
        return {product.key: product for product in products if not is_accessory(product, device_words)}

    found = NearMissResult(unknown_terms=await find_unknown_terms(catalog, criteria.terms))
    pool: dict[tuple[str, str], Product] = {}
    strict = criteria.model_copy(update={"category_words": None})
    relaxations = (*_relax_numbers(strict), *_relax_names(strict, names, found.unknown_terms))
    for name, description, update in relaxations[:MAX_RELAXATIONS]:
        if products := await search(strict.model_copy(update=update)):
            found.obstacles.append(Obstacle(name, description, tuple(products.values())))
            pool |= products
    for relaxed in (*_build_fallbacks(strict), *_build_fallbacks(criteria)):
        pool = pool or await search(relaxed)
    # The sort is stable, so that equally near products stay ranked.
    ranked = rank_products(list(pool.values()), criteria)
    ranked.sort(key=lambda product: (len(criteria.find_unmet(product)), _measure_distance(product, criteria)))
    found.products = ranked[:MAX_NEAR_MISSES]
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


def _relax_numbers(criteria: Criteria) -> Iterator[Relaxation]:
    if price := describe_price_limits(criteria):
        yield "price", f"the price {price}", {"price_min": None, "price_max": None}
    rated = [bound for bound in criteria.bounds if bound.name in COLUMN_KEYS]
    others = tuple(bound for bound in criteria.bounds if bound not in rated)
    if rated:
        yield RATING_OBSTACLE, " and ".join(map(describe_bound, rated)), {"bounds": others}
    for bound in others:
        yield bound.name, describe_bound(bound), {"bounds": tuple(b for b in criteria.bounds if b is not bound)}


def _relax_names(criteria: Criteria, names: VocabularyIndex, unknown: list[str]) -> Iterator[Relaxation]:
    if criteria.brands:
        yield "brand", f"the brand {names.spell_brands(criteria.brands)}", {"brands": ()}
    for feature in criteria.features[0 if criteria.categories else 1 :]:
        yield feature.name, feature.name, {"features": tuple(f for f in criteria.features if f is not feature)}
    excluded = [*map(names.spell_brand, criteria.excluded_brands), *(f.name for f in criteria.excluded_features)]
    if excluded:
        rest: dict[str, object] = {"excluded_brands": (), "excluded_features": ()}
        yield "without", f"leaving out {' and '.join(excluded)}", rest
    if criteria.marketplace:
        yield "marketplace", f"the shop {criteria.marketplace}", {"marketplace": None}
    kept = tuple(term for term in criteria.terms if term not in unknown) if unknown else ()
    if criteria.terms and (criteria.categories or criteria.brands or kept):
        gone = [term for term in criteria.terms if term not in kept]
        yield "terms", f"“{' '.join(gone)}”", {"terms": kept}


def _build_fallbacks(criteria: Criteria) -> Iterator[Criteria]:
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
    if criteria.has_price_limit:
        price = Bound(name="price", minimum=criteria.price_min, maximum=criteria.price_max)
        total += _relative_miss(product.price if product.currency == criteria.currency else None, price)
    for bound in criteria.bounds:
        total += _relative_miss(get_number(product, bound.name), bound)
    figures = {"price", "currency", *(bound.name for bound in criteria.bounds)}
    return total + sum(name not in figures for name in criteria.find_unmet(product))


def _relative_miss(number: Decimal | None, bound: Bound) -> Decimal:
    if bound.is_met_by(number):
        return Decimal(0)
    if number is None:
        return Decimal(1)
    limit = bound.minimum if bound.minimum is not None and number <= bound.minimum else bound.maximum
    return abs(number - limit) / limit if limit else Decimal(1)


def describe_misses(product: Product, criteria: Criteria, names: VocabularyIndex) -> list[str]:
    """Describe every criterion that a product, which has a price, does not meet."""
    bounds = {b.name: b for b in criteria.bounds if not b.is_met_by(get_number(product, b.name))}
    return [
        _describe_bound_miss(product, bounds[name])
        if name in bounds
        else _describe_other_miss(product, criteria, name, names)
        for name in dict.fromkeys(criteria.find_unmet(product))
        if name != "price" or product.currency == criteria.currency
    ]


def _describe_bound_miss(product: Product, bound: Bound) -> str:
    value, row = get_number(product, bound.name), BY_KEY.get(bound.name)
    if value is None:
        return (row and row.unknown) or f"{describe_bound(bound)} is not confirmed in its data"
    shown = format_number(value) if bound.name in COLUMN_KEYS else describe_attribute(bound.name, value)
    return f"{shown} instead of {describe_bound(bound)}"


def _describe_other_miss(product: Product, criteria: Criteria, name: str, names: VocabularyIndex) -> str:
    amount, currency = product.price or Decimal(0), product.currency or ""
    price, wanted = format_money(amount, currency), names.spell_brands(criteria.brands)
    over = criteria.price_max is not None and amount > criteria.price_max
    limit = (criteria.price_max if over else criteria.price_min) or Decimal(0)
    gap = f"{format_money(abs(amount - limit), currency)} {'over the limit' if over else 'below the range'}"
    known = {
        "price": f"{price}, which is {gap}",
        "currency": f"priced in {currency} ({price}), which is not compared with {describe_price_limits(criteria)}",
        "brand": f"made by {product.brand or 'an unnamed maker'}" + (f" instead of {wanted}" if wanted else ""),
        "category": f"it is filed under {product.category or 'no category'}",
        "marketplace": f"not sold on {criteria.marketplace}",
    }
    if name.startswith("without "):
        return f"has {name.removeprefix('without ')}"
    return known.get(name, f"{name} is not stated")


MIN_WORD_LENGTH = 4
MIN_SIMILARITY = 0.82
MAX_LOOKUPS = 6
"""Unknown words that are looked up."""

_NOUNS = (phrase for phrases in (lexicon.DEVICE_NOUNS | lexicon.ACCESSORY_NOUNS).values() for phrase in phrases)
_PHRASES = (*_NOUNS, *lexicon.AMBIGUOUS_NOUNS, *lexicon.FEATURE_BY_PHRASE, *PREFERENCES, *lexicon.LIMIT_WORDS)
KNOWN_WORDS = frozenset(words_of(" ".join(_PHRASES)))
"""Words of the grammar for products, features and limits."""

Corrections = Mapping[str, str]
"""Words as written, and their corrections in the spelling of the catalogue."""


async def find_corrections(catalog: Catalog, criteria: Criteria, names: VocabularyIndex) -> Corrections:
    """Return the terms that may be misspelt and the nearest known word for each."""
    written = {word: part for term in criteria.terms for part in term.split() for word in words_of(part)[:1]}
    known = KNOWN_WORDS | lexicon.STOP_WORDS
    unknown = [word for word in written if word.isalpha() and len(word) >= MIN_WORD_LENGTH and word not in known]
    unknown = await find_unknown_terms(catalog, unknown[:MAX_LOOKUPS])
    if not unknown:
        return {}
    nearest = await catalog.run(lambda work: work.catalog.find_corrections(unknown), repeatable=True)
    found = {}
    for word in unknown:
        candidates = sorted({*get_close_matches(word, KNOWN_WORDS), nearest.get(word, word)} - {word})
        ranks = {candidate: _rank_candidate(word, candidate) for candidate in candidates}
        best = max(candidates, key=ranks.__getitem__, default=word)
        if best != word and ranks[best][0] >= MIN_SIMILARITY:
            found[written[word]] = names.spell_brand(best)
    return found


def _rank_candidate(word: str, candidate: str) -> tuple[float, int]:
    """Return the sort key of a candidate: similarity, then equal first letters, which are rarely misspelt."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(word, candidate, strict=False))
    return SequenceMatcher(None, word, candidate).ratio(), sum(1 for _ in same)


def correct_spelling(
    question: str, context: ConversationContext, corrected: Corrections
) -> tuple[str, ConversationContext]:
    """Replace misspelt words in a question and in the earlier messages."""

    def correct(text: str) -> str:
        for written, meant in corrected.items():
            text = re.sub(rf"\b{re.escape(written)}\b", meant, text, flags=re.IGNORECASE)
        return text

    messages = [message.model_copy(update={"text": correct(message.text)}) for message in context.messages]
    last = correct(context.last_query) if context.last_query else None
    return correct(question), context.model_copy(update={"messages": messages, "last_query": last})
