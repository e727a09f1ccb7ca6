"""Parse a question into search criteria: extract numbers, shop and sort order, then read the words.

A question may name several products, such as "iPhone 15 or Galaxy S25".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.noun_phrase import RequestedProduct, find_requested_product
from shopassist.assistant.parsing.numbers import Quantity, extract_quantities
from shopassist.assistant.parsing.phrases import NEGATION_MARKER, extract_exclusions, is_model_name, parse_phrases
from shopassist.assistant.parsing.vocabulary import (
    MAX_QUESTION_LENGTH,
    PHRASE_PLACEHOLDER,
    ProductNoun,
    VocabularyIndex,
    normalise_question,
    tokenise,
)
from shopassist.catalog.attributes import COLUMN_SUBJECTS, FAST_FEATURES, find_attribute
from shopassist.catalog.criteria import Bound, Criteria, Feature, SortOrder
from shopassist.catalog.models import words_of

NEAR_TOLERANCE = Decimal("0.1")

PriceLimits = tuple[Decimal | None, Decimal | None, str | None]


def build_price_limits(quantities: Iterable[Quantity], currency: str) -> PriceLimits:
    """Return the lowest price, the highest price and their currency; without a mark that is `currency`.

    Of several minimum or maximum prices the last one counts.
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
    """Return the limits on attributes and ratings that the quantities mean in products of these kinds."""
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
    """A question as criteria.

    `droppable_terms` only describe: they become preferences if nothing has them all. `excluded_products` were shown
    before. With `alternatives` several products are searched for instead of `criteria`.
    """

    text: str
    criteria: Criteria
    noun: ProductNoun | None = None
    droppable_terms: frozenset[str] = frozenset()
    off_topic: bool = False
    excluded_products: ProductKeys = frozenset()
    alternatives: tuple[Criteria, ...] = ()

    @property
    def noun_text(self) -> str | None:
        """What the shopper called the kind of product."""
        return self.noun.text if self.noun else None

    @property
    def is_understood(self) -> bool:
        """Whether anything but unknown words was recognised."""
        c = self.criteria
        stated = (c.categories, c.brands, c.bounds, c.features, c.excluded_brands, c.excluded_features, c.currency)
        return any(stated) or self.noun is not None or bool(self.alternatives)

    @property
    def is_unanswerable(self) -> bool:
        """Whether the question does not ask for a product."""
        return (self.off_topic and self.noun is None) or not (self.is_understood or self.criteria.terms)


def parse_question(question: str, names: VocabularyIndex) -> ParsedQuestion:
    """Parse a question into criteria, with categories and brands as the catalogue names them."""
    text = normalise_question(question)
    rest = lexicon.ABBREVIATION_PATTERN.sub(lambda found: lexicon.ABBREVIATIONS[found[0]], text)
    rest, marketplace = _extract_marketplace(rest)
    rest = lexicon.LEAD_IN.sub("", rest, count=1)
    rest, quantities = extract_quantities(rest)
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
    """Return the terms that may be dropped. Words that are capitalised within a sentence are names and are kept."""
    names = {name.casefold() for name in CAPITALISED_WORD.findall(question[:MAX_QUESTION_LENGTH])}
    return frozenset(found.droppable_terms) - names


def _extract_marketplace(text: str) -> tuple[str, str | None]:
    found = lexicon.MARKETPLACE_PATTERN.search(text)
    return (lexicon.MARKETPLACE_PATTERN.sub(PHRASE_PLACEHOLDER, text), found[1]) if found else (text, None)


def _extract_sort_order(text: str) -> tuple[str, SortOrder]:
    order = SortOrder.RELEVANCE
    for pattern, meaning in SORT_PATTERNS:
        if pattern.search(text):
            order = meaning if order is SortOrder.RELEVANCE else order
            text = pattern.sub(PHRASE_PLACEHOLDER, text)
    return text, order


def _build_identity_criteria(found: RequestedProduct) -> dict[str, object]:
    noun = found.noun
    names: dict[str, object] = {"brands": tuple(found.brands), "terms": tuple(found.terms)}
    if noun is not None and noun.categories:
        return names | {"categories": _narrow_categories(found), "category_words": noun.to_feature()}
    if noun is not None and noun.accessory:
        return names | {"terms": tuple(dict.fromkeys([*found.terms, *noun.text.split()]))}
    return names


def _narrow_categories(found: RequestedProduct) -> tuple[str, ...]:
    """Of "mens-shoes" and "womens-shoes", return the one that other words of the question name."""
    categories = found.noun.categories if found.noun else ()
    words = set(words_of(" ".join([*found.terms, *found.preferences])))
    named = tuple(category for category in categories if words.intersection(words_of(category)))
    return named or categories


def _build_stated_criteria(
    found: RequestedProduct, quantities: list[Quantity], names: VocabularyIndex
) -> dict[str, object]:
    low, high, currency = build_price_limits(quantities, names.currency)
    noun = found.noun
    kinds = noun.kinds or noun.categories if noun else ()
    if noun and noun.accessory:
        # In "bag for a 15 inch laptop" the number is about the laptop.
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


MAX_ALTERNATIVES = 3
# Some pieces of a comparison only introduce it ("which is better, …").
MAX_PIECES = 6


@dataclass(frozen=True, slots=True)
class NamedProduct:
    """The words that name one of several alternatives."""

    brands: tuple[str, ...]
    terms: tuple[str, ...]
    features: tuple[Feature, ...]


def parse_alternatives(
    text: str, whole: RequestedProduct, criteria: Criteria, names: VocabularyIndex
) -> tuple[Criteria, ...]:
    """Return the criteria of each product that `text` names, if it names several; `criteria` are those of all."""
    joined = lexicon.COMPARISON_SEPARATOR if lexicon.COMPARISON_PATTERN.search(text) else lexicon.OR_PATTERN
    pieces = [piece for piece in joined.split(text) if piece.strip()]
    if not 1 < len(pieces) <= MAX_PIECES:
        return ()
    parts = [find_requested_product(extract_exclusions(parse_phrases(tokenise(piece), names))[0]) for piece in pieces]
    parts = [part for part in parts if part.brands or part.terms or part.features]
    # In a comparison all terms are names, even without a number.
    named = all(map(_names_model, parts)) or (
        joined is lexicon.COMPARISON_SEPARATOR and all(part.terms for part in parts)
    )
    if not 1 < len(parts) <= MAX_ALTERNATIVES or not named or _has_several_kinds(parts):
        return ()
    if not any(part.terms for part in parts):
        # "4G or 5G" is one criterion in two wordings.
        return ()
    accessory = whole.noun if whole.noun and whole.noun.accessory else None
    products: list[NamedProduct] = []
    for part in parts:
        products.append(_build_named_product(part, products[-1] if products else None, accessory))
    distinct = {feature for product in products for feature in product.features}
    shared = tuple(feature for feature in criteria.features if feature not in distinct)
    return tuple(
        criteria.model_copy(
            update={"brands": product.brands, "terms": product.terms, "features": (*shared, *product.features)}
        )
        for product in products
    )


def combine_alternatives(alternatives: Sequence[Criteria], criteria: Criteria) -> Criteria:
    """Return criteria that describe the alternatives, with their names as one term; no search uses them."""
    shared_features = _shared_features(alternatives)
    shared = tuple(feature for feature in criteria.features if feature in shared_features)
    name = " or ".join(name_alternatives(alternatives))
    return criteria.model_copy(update={"brands": (), "terms": (name,), "features": shared})


def name_alternatives(alternatives: Sequence[Criteria]) -> list[str]:
    """Return the name of each alternative."""
    shared_features = _shared_features(alternatives)
    return [
        " ".join(
            [*one.brands, *one.terms, *(feature.name for feature in one.features if feature not in shared_features)]
        )
        for one in alternatives
    ]


def _shared_features(alternatives: Sequence[Criteria]) -> set[Feature]:
    return set.intersection(*(set(alternative.features) for alternative in alternatives))


def _names_model(part: RequestedProduct) -> bool:
    if part.terms:
        return any(is_model_name(word) for term in part.terms for word in words_of(term))
    return any(is_model_name(feature.name) for feature in part.features)


def _has_several_kinds(parts: Sequence[RequestedProduct]) -> bool:
    """Return whether the parts are of several kinds, which one search cannot express."""
    return len({part.noun.kinds or part.noun.text for part in parts if part.noun}) > 1


def _build_named_product(
    part: RequestedProduct, before: NamedProduct | None, accessory: ProductNoun | None
) -> NamedProduct:
    """Build the name of one alternative. In "Galaxy S24 or S25" the second takes the line of the one `before`.

    `accessory` is the noun if the question is for an accessory: then brands are those of devices, and become terms.
    """
    brands, terms = tuple(part.brands), tuple(dict.fromkeys(part.terms))
    if accessory and part.noun is None:
        brands, terms = (), (*brands, *terms)
    if accessory and not accessory.categories:
        terms = tuple(dict.fromkeys([*terms, *accessory.text.split()]))
    if before and not brands and terms and all(any(c.isdigit() for c in term) for term in terms):
        lines = (term for term in before.terms if not any(c.isdigit() for c in term))
        return NamedProduct(before.brands, (*lines, *terms), ())
    return NamedProduct(brands, terms, () if terms else tuple(part.features))
