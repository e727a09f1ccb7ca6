"""Parse a question into search criteria: extract numbers, shop and sort order, then read the words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.alternatives import combine_alternatives, parse_alternatives
from shopassist.assistant.parsing.noun_phrase import RequestedProduct, find_requested_product
from shopassist.assistant.parsing.numbers import Quantity, extract_quantities
from shopassist.assistant.parsing.phrases import NEGATION_MARKER, extract_exclusions, parse_phrases
from shopassist.assistant.parsing.tokens import (
    MAX_QUESTION_LENGTH,
    normalise_question,
    replace_with_blank,
    replace_with_gap,
    tokenise,
)
from shopassist.assistant.parsing.vocabulary import ProductNoun, VocabularyIndex
from shopassist.catalog.attributes import COLUMN_SUBJECTS, FAST_FEATURES, find_attribute
from shopassist.catalog.criteria import Bound, Criteria, Feature, SortOrder
from shopassist.catalog.models import words_of

NEAR_TOLERANCE = Decimal("0.1")

PriceLimits = tuple[Decimal | None, Decimal | None, str | None]


def build_price_limits(quantities: Iterable[Quantity], currency: str) -> PriceLimits:
    """The lowest and the highest price and their currency; an amount without a mark is in `currency`.

    The last sum that was stated for a side counts.
    """
    low: Decimal | None = None
    high: Decimal | None = None
    stated: str | None = None
    for quantity in quantities:
        if quantity.subject == "price":
            near = _widen(quantity)
            low = near.minimum if near.minimum is not None else low
            high = near.maximum if near.maximum is not None else high
            stated = near.currency or stated
    return low, high, (stated or currency) if low is not None or high is not None else None


def build_bounds(quantities: Iterable[Quantity], kinds: tuple[str, ...]) -> tuple[Bound, ...]:
    """The limits on ratings and attributes that the quantities mean in products of these kinds."""
    bounds: dict[tuple[str, bool], Bound] = {}
    for quantity in quantities:
        low, high = quantity.minimum, quantity.maximum
        row = find_attribute(quantity.subject, kinds, int(high or 0) if low is None else int(low))
        if row is None:
            continue
        if quantity.is_bare and low is not None:
            low, high = row.bare(low)
        else:
            near = _widen(quantity)
            low, high = near.minimum, near.maximum
        known = bounds.get((row.key, quantity.exclusive), Bound(name=row.key, exclusive=quantity.exclusive))
        bounds[row.key, quantity.exclusive] = known.model_copy(
            update={
                "minimum": low if low is not None else known.minimum,
                "maximum": high if high is not None else known.maximum,
            }
        )
    return tuple(bounds.values())


def _widen(quantity: Quantity) -> Quantity:
    if not quantity.is_approximate or quantity.minimum is None or quantity.maximum is None:
        return quantity
    return Quantity(
        quantity.subject,
        quantity.minimum * (1 - NEAR_TOLERANCE),
        quantity.maximum * (1 + NEAR_TOLERANCE),
        currency=quantity.currency,
    )


CAPITALISED_WORD = re.compile(r"(?<=[\w,] )[A-Z][^\W_]*")
SORT_PATTERNS = (
    (lexicon.BEST_RATED_PATTERN, SortOrder.BEST_RATED),
    (lexicon.MOST_EXPENSIVE_PATTERN, SortOrder.MOST_EXPENSIVE),
    (lexicon.CHEAPEST_PATTERN, SortOrder.CHEAPEST),
)
ProductKeys = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ParsedQuestion:
    """What was understood of a question."""

    text: str
    criteria: Criteria
    noun: ProductNoun | None = None
    droppable_terms: frozenset[str] = frozenset()
    """Terms that only describe: they may become wishes when nothing has them all."""

    off_topic: bool = False
    excluded_products: ProductKeys = frozenset()
    """Products that were shown before and are not wanted again, by source and id."""

    alternatives: tuple[Criteria, ...] = ()
    """What is looked up in place of `criteria`, where the question names several products."""

    @property
    def is_understood(self) -> bool:
        """Whether anything but bare words was recognised."""
        c = self.criteria
        stated = (c.categories, c.brands, c.bounds, c.features, c.excluded_brands, c.excluded_features, c.currency)
        return any(stated) or self.noun is not None or bool(self.alternatives)

    @property
    def is_unanswerable(self) -> bool:
        """Whether there is nothing here to look for."""
        return (self.off_topic and self.noun is None) or not (self.is_understood or self.criteria.terms)


def parse_question(question: str, names: VocabularyIndex) -> ParsedQuestion:
    """What `question` asks of a product, in the catalogue's own names."""
    text = normalise_question(question)
    rest = lexicon.ABBREVIATION_PATTERN.sub(lambda found: lexicon.ABBREVIATIONS[found[0]], text)
    rest, marketplace = _extract_marketplace(rest)
    rest = lexicon.LEAD_IN.sub("", rest, count=1)
    rest, quantities = extract_quantities(rest, replace_with_blank)
    rest, order = _extract_sort_order(rest)
    rest = lexicon.HINDI_LINKER.sub("", rest)
    rest = lexicon.NEGATION_PATTERN.sub(f" {NEGATION_MARKER} ", rest)
    phrases, excluded = extract_exclusions(parse_phrases(tokenise(rest), names))
    found = find_requested_product(phrases)
    criteria = Criteria(
        **_build_identity_criteria(found),
        **_build_stated_criteria(found, quantities, names),
        excluded_categories=excluded.categories,
        excluded_brands=excluded.brands,
        excluded_features=excluded.features,
        marketplace=marketplace,
        sort_order=order,
    )
    alternatives = parse_alternatives(rest, found, criteria, names)
    return ParsedQuestion(
        text,
        combine_alternatives(alternatives, criteria) if alternatives else criteria,
        found.noun,
        _droppable_terms(found, question),
        bool(lexicon.OFF_TOPIC_PATTERN.search(text)),
        alternatives=alternatives,
    )


def _droppable_terms(found: RequestedProduct, question: str) -> frozenset[str]:
    """Words with a capital inside a sentence are names, which nothing can stand in for."""
    names = {name.casefold() for name in CAPITALISED_WORD.findall(question[:MAX_QUESTION_LENGTH])}
    return frozenset(found.droppable_terms) - names


def _extract_marketplace(text: str) -> tuple[str, str | None]:
    found = lexicon.MARKETPLACE_PATTERN.search(text)
    return (lexicon.MARKETPLACE_PATTERN.sub(replace_with_gap, text), found[1]) if found else (text, None)


def _extract_sort_order(text: str) -> tuple[str, SortOrder]:
    order = SortOrder.RELEVANCE
    for pattern, meaning in SORT_PATTERNS:
        if pattern.search(text):
            order = meaning if order is SortOrder.RELEVANCE else order
            text = pattern.sub(replace_with_gap, text)
    return text, order


def _build_identity_criteria(found: RequestedProduct) -> dict[str, object]:
    noun = found.noun
    if noun is None:
        return {"brands": tuple(found.brands), "terms": tuple(found.terms)}
    if noun.categories:
        kind: dict[str, object] = {"categories": _narrow_categories(found), "category_words": noun.to_feature()}
        return kind | {"brands": tuple(found.brands), "terms": tuple(found.terms)}
    if noun.accessory:
        terms = dict.fromkeys([*found.terms, *noun.text.split()])
        return {"brands": tuple(found.brands), "terms": tuple(terms)}
    return {"brands": tuple(found.brands), "terms": tuple(found.terms)}


def _narrow_categories(found: RequestedProduct) -> tuple[str, ...]:
    """Of "mens-shoes" and "womens-shoes" the one that the question's other words name."""
    categories = found.noun.categories if found.noun else ()
    said = set(words_of(" ".join([*found.terms, *found.preferences])))
    named = tuple(category for category in categories if said.intersection(words_of(category)))
    return named or categories


def _build_stated_criteria(
    found: RequestedProduct, quantities: list[Quantity], names: VocabularyIndex
) -> dict[str, object]:
    low, high, currency = build_price_limits(quantities, names.currency)
    noun = found.noun
    kinds = noun.kinds or noun.categories if noun else ()
    if noun and noun.accessory:
        # "Bag for a 15 inch laptop": the figure is the laptop's.
        quantities = [quantity for quantity in quantities if quantity.subject in COLUMN_SUBJECTS]
    bounds = build_bounds(quantities, kinds)
    features, more = _split_measurable_features(found.features, kinds)
    if noun and not noun.categories and not noun.accessory:
        features = [noun.to_feature(), *features]
    return {
        "price_min": low,
        "price_max": high,
        "currency": currency,
        "bounds": (*bounds, *more),
        "features": tuple(dict.fromkeys(features)),
        "preferences": tuple(dict.fromkeys(found.preferences)),
    }


def _split_measurable_features(features: list[Feature], kinds: tuple[str, ...]) -> tuple[list[Feature], list[Bound]]:
    """Replace features that are a minimum of an attribute in these kinds, such as fast charging of phones."""
    kept: list[Feature] = []
    bounds: list[Bound] = []
    for feature in features:
        row = FAST_FEATURES.get(feature.name)
        if row and row.fast and row.fast.kinds.intersection(kinds):
            bounds.append(Bound(name=row.key, minimum=Decimal(row.fast.minimum)))
        else:
            kept.append(feature)
    return kept, list(dict.fromkeys(bounds))
