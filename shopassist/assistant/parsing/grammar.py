"""Parse a question into search criteria: extract numbers, shop and sort order, then read the words.

A question may name several products, such as "iPhone 15 or Galaxy S25".
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.noun_phrase import RequestedProduct, find_requested_product
from shopassist.assistant.parsing.numbers import Quantity, extract_quantities
from shopassist.assistant.parsing.phrases import ProductNoun, VocabularyIndex, is_model_name, read_phrases
from shopassist.catalog.attributes import COLUMN_SUBJECTS, FAST_FEATURES, find_attribute
from shopassist.catalog.models import Bound, Criteria, Feature, SortOrder, words_of

NEAR_TOLERANCE = Decimal("0.1")
_PLAIN_QUOTES = str.maketrans({"″": '"', "\N{RIGHT SINGLE QUOTATION MARK}": "'"})
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


def _normalise(question: str) -> str:
    """Return a question in lower case, without accents, with plain quotes and single spaces, cut to 2,000 letters."""
    plain = unicodedata.normalize("NFKD", question[: lexicon.MAX_QUESTION_LENGTH].translate(_PLAIN_QUOTES)).casefold()
    bare = "".join(c for c in plain if c.isspace() or (c.isprintable() and not unicodedata.combining(c)))
    return " ".join(bare.replace(lexicon.NUMBER_MARK, " ").split())[: lexicon.MAX_QUESTION_LENGTH]


def parse_question(question: str, names: VocabularyIndex) -> ParsedQuestion:
    """Parse a question into criteria, with categories and brands as the catalogue names them."""
    text = _normalise(question)
    rest = lexicon.ABBREVIATION_PATTERN.sub(lambda found: lexicon.ABBREVIATIONS[found[0]], text)
    shop = lexicon.MARKETPLACE_PATTERN.search(rest)
    rest = lexicon.MARKETPLACE_PATTERN.sub(lexicon.PHRASE_PLACEHOLDER, rest)
    rest = lexicon.LEAD_IN.sub("", rest, count=1)
    rest, quantities = extract_quantities(rest)
    rest, order = _extract_sort_order(rest)
    rest = lexicon.HINDI_LINKER.sub("", rest)
    phrases, exclusions = read_phrases(rest, names)
    found = find_requested_product(phrases)
    criteria = Criteria(
        **_build_identity_criteria(found),
        **_build_price_criteria(quantities, names.currency),
        **_build_stated_criteria(found, quantities),
        **exclusions,
        marketplace=shop[1] if shop else None,
        sort_order=order,
    )
    alternatives = _parse_alternatives(rest, found, criteria, names)
    # Words that are capitalised within a sentence are names and are kept.
    capitalised = {name.casefold() for name in CAPITALISED_WORD.findall(question[: lexicon.MAX_QUESTION_LENGTH])}
    return ParsedQuestion(
        text,
        _combine_alternatives(alternatives, criteria) if alternatives else criteria,
        found.noun,
        frozenset(found.droppable_terms) - capitalised,
        bool(lexicon.OFF_TOPIC_PATTERN.search(text)),
        alternatives=alternatives,
    )


def _extract_sort_order(text: str) -> tuple[str, SortOrder]:
    order = SortOrder.RELEVANCE
    for pattern, meaning in SORT_PATTERNS:
        if pattern.search(text):
            order = meaning if order is SortOrder.RELEVANCE else order
            text = pattern.sub(lexicon.PHRASE_PLACEHOLDER, text)
    return text, order


def _build_identity_criteria(found: RequestedProduct) -> dict[str, object]:
    noun, terms = found.noun, found.terms
    if noun and noun.accessory and not noun.categories:
        terms = [*dict.fromkeys([*terms, *noun.text.split()])]
    criteria: dict[str, object] = {"brands": tuple(found.brands), "terms": tuple(terms)}
    if noun and noun.categories:
        # Of "mens-shoes" and "womens-shoes", take the one that other words of the question name.
        words = set(words_of(" ".join([*found.terms, *found.preferences])))
        named = tuple(category for category in noun.categories if words.intersection(words_of(category)))
        criteria |= {"categories": named or noun.categories, "category_words": noun.to_feature()}
    return criteria


def _build_price_criteria(quantities: Sequence[Quantity], currency: str) -> dict[str, object]:
    """Return the price limits; without a mark they are in `currency`. Of several the last one counts."""
    prices = [_widen(quantity) for quantity in reversed(quantities) if quantity.subject == "price"]
    return {
        "price_min": next((price.minimum for price in prices if price.minimum is not None), None),
        "price_max": next((price.maximum for price in prices if price.maximum is not None), None),
        "currency": next((price.currency for price in prices if price.currency), currency if prices else None),
    }


def _build_stated_criteria(found: RequestedProduct, quantities: list[Quantity]) -> dict[str, object]:
    noun = found.noun
    kinds = noun.kinds or noun.categories if noun else ()
    if noun and noun.accessory:
        # In "bag for a 15 inch laptop" the number is about the laptop.
        quantities = [quantity for quantity in quantities if quantity.subject in COLUMN_SUBJECTS]
    features, bounds = [], _build_bounds(quantities, kinds)
    if noun and not noun.categories and not noun.accessory:
        features.append(noun.to_feature())
    for feature in found.features:
        # Fast charging of phones is a minimum of an attribute.
        row = FAST_FEATURES.get(feature.name)
        if row and row.fast and row.fast.kinds.intersection(kinds):
            bounds.append(Bound(name=row.key, minimum=Decimal(row.fast.minimum)))
        else:
            features.append(feature)
    return {
        "bounds": tuple(bounds),
        "features": tuple(dict.fromkeys(features)),
        "preferences": tuple(dict.fromkeys(found.preferences)),
    }


def _build_bounds(quantities: Sequence[Quantity], kinds: tuple[str, ...]) -> list[Bound]:
    """Return the limits on attributes and ratings that the quantities mean in products of these kinds."""
    bounds: dict[tuple[str, bool], Bound] = {}
    for quantity in quantities:
        near = _widen(quantity)
        low, high = near.minimum, near.maximum
        row = find_attribute(quantity.subject, kinds, int((quantity.maximum if low is None else quantity.minimum) or 0))
        if row is None:
            continue
        if quantity.is_bare and low is not None:
            low, high = row.bare(low)
        known = bounds.get((row.key, quantity.exclusive), Bound(name=row.key, exclusive=quantity.exclusive))
        limits = {name: limit for name, limit in (("minimum", low), ("maximum", high)) if limit is not None}
        bounds[row.key, quantity.exclusive] = known.model_copy(update=limits)
    return list(bounds.values())


def _widen(quantity: Quantity) -> Quantity:
    low, high = quantity.minimum, quantity.maximum
    if not quantity.is_approximate or low is None or high is None:
        return quantity
    return replace(quantity, minimum=low * (1 - NEAR_TOLERANCE), maximum=high * (1 + NEAR_TOLERANCE))


MAX_ALTERNATIVES = 3
# Some pieces of a comparison only introduce it ("which is better, …").
MAX_PIECES = 6


def _parse_alternatives(
    text: str, whole: RequestedProduct, criteria: Criteria, names: VocabularyIndex
) -> tuple[Criteria, ...]:
    """Return the criteria of each product that `text` names, if it names several; `criteria` are those of all."""
    is_comparison = lexicon.COMPARISON_PATTERN.search(text) is not None
    pieces = (lexicon.COMPARISON_SEPARATOR if is_comparison else lexicon.OR_PATTERN).split(text)
    pieces = [piece for piece in pieces if piece.strip()]
    if not 1 < len(pieces) <= MAX_PIECES:
        return ()
    parts = [find_requested_product(read_phrases(piece, names)[0]) for piece in pieces]
    parts = [part for part in parts if part.brands or part.terms or part.features]
    # In a comparison all terms are names, even without a number.
    named = all(map(_names_model, parts)) or (is_comparison and all(part.terms for part in parts))
    # One search cannot express several kinds.
    kinds = {part.noun.kinds or part.noun.text for part in parts if part.noun}
    # "4G or 5G" is one criterion in two wordings.
    has_terms = any(part.terms for part in parts)
    if not 1 < len(parts) <= MAX_ALTERNATIVES or not named or len(kinds) > 1 or not has_terms:
        return ()
    accessory = whole.noun if whole.noun and whole.noun.accessory else None
    products: list[Criteria] = []
    for part in parts:
        products.append(_build_alternative(part, criteria, products[-1] if products else None, accessory))
    distinct = {feature for product in products for feature in product.features}
    shared = tuple(feature for feature in criteria.features if feature not in distinct)
    return tuple(product.model_copy(update={"features": (*shared, *product.features)}) for product in products)


def _names_model(part: RequestedProduct) -> bool:
    if part.terms:
        return any(is_model_name(word) for term in part.terms for word in words_of(term))
    return any(is_model_name(feature.name) for feature in part.features)


def _build_alternative(
    part: RequestedProduct, criteria: Criteria, before: Criteria | None, accessory: ProductNoun | None
) -> Criteria:
    """Return `criteria` with the name of one product. In "Galaxy S24 or S25" the second takes the line of `before`.

    `accessory` is the noun if the question is for an accessory: then brands are those of devices, and become terms.
    """
    brands, terms = tuple(part.brands), tuple(dict.fromkeys(part.terms))
    if accessory and part.noun is None:
        brands, terms = (), (*brands, *terms)
    if accessory and not accessory.categories:
        terms = tuple(dict.fromkeys([*terms, *accessory.text.split()]))
    features = () if terms else tuple(part.features)
    if before and not brands and terms and all(any(c.isdigit() for c in term) for term in terms):
        lines = (term for term in before.terms if not any(c.isdigit() for c in term))
        brands, terms = before.brands, (*lines, *terms)
    return criteria.model_copy(update={"brands": brands, "terms": terms, "features": features})


def _combine_alternatives(alternatives: Sequence[Criteria], criteria: Criteria) -> Criteria:
    """Return criteria that describe the alternatives, with their names as one term; no search uses them."""
    shared_features = _shared_features(alternatives)
    shared = tuple(feature for feature in criteria.features if feature in shared_features)
    name = " or ".join(name_alternatives(alternatives))
    return criteria.model_copy(update={"brands": (), "terms": (name,), "features": shared})


def name_alternatives(alternatives: Sequence[Criteria]) -> list[str]:
    """Return the name of each alternative."""
    shared = _shared_features(alternatives)
    return [
        " ".join([*one.brands, *one.terms, *(feature.name for feature in one.features if feature not in shared)])
        for one in alternatives
    ]


def _shared_features(alternatives: Sequence[Criteria]) -> set[Feature]:
    return set.intersection(*(set(alternative.features) for alternative in alternatives))
