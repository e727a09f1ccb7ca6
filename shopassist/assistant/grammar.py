"""Reads a question into criteria.

What has a form of its own (numbers, shops, orders, negations) is taken out first; the rest is read word by word. The
first noun phrase names the product: its last noun is what is wanted, what stands before it tells which one.
"""

import re
from dataclasses import dataclass

from shopassist.assistant import lexicon
from shopassist.assistant.alternatives import alternatives_of, together
from shopassist.assistant.bounds import bounds_of, price_of
from shopassist.assistant.exclusions import take_exclusions
from shopassist.assistant.names import Names, Noun
from shopassist.assistant.nounphrase import Wanted, wanted
from shopassist.assistant.phrases import EXCLUDED, phrases_of
from shopassist.assistant.quantities import Quantity, take_quantities
from shopassist.assistant.tokens import LONGEST, blank, gap, normalised, tokenised
from shopassist.models.criteria import Bound, Criteria, Feature, Order
from shopassist.models.words import words_of

FAST_CHARGING_WATTS = 18
PROPER = re.compile(r"(?<=[\w,] )[A-Z][^\W_]*")
ORDERS = (
    (lexicon.BEST_RATED, Order.BEST_RATED),
    (lexicon.DEAREST, Order.DEAREST),
    (lexicon.CHEAPEST, Order.CHEAPEST),
)
Seen = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was understood of a question."""

    text: str
    criteria: Criteria
    noun: Noun | None = None
    loose: frozenset[str] = frozenset()
    """Terms that only describe: they may become wishes when nothing has them all."""

    off_topic: bool = False
    seen: Seen = frozenset()
    """Products that were shown before and are not wanted again, by source and id."""

    alternatives: tuple[Criteria, ...] = ()
    """What is looked up in place of `criteria`, where the question names several products."""

    @property
    def understood(self) -> bool:
        """Whether anything but bare words was recognised."""
        c = self.criteria
        stated = (c.categories, c.brands, c.bounds, c.features, c.excluded_brands, c.excluded_features, c.currency)
        return any(stated) or self.noun is not None or bool(self.alternatives)

    @property
    def unanswerable(self) -> bool:
        """Whether there is nothing here to look for."""
        return (self.off_topic and self.noun is None) or not (self.understood or self.criteria.terms)


def read(question: str, names: Names) -> Reading:
    """What `question` asks of a product, in the catalogue's own names."""
    text = normalised(question)
    rest = lexicon.ABBREVIATED.sub(lambda found: lexicon.ABBREVIATIONS[found[0]], text)
    rest, marketplace = _take_marketplace(rest)
    rest = lexicon.LEAD_IN.sub("", rest, count=1)
    rest, quantities = take_quantities(rest, blank)
    rest, order = _take_order(rest)
    rest = lexicon.LINKER.sub("", rest)
    rest = lexicon.NEGATION.sub(f" {EXCLUDED} ", rest)
    phrases, excluded = take_exclusions(phrases_of(tokenised(rest), names))
    found = wanted(phrases)
    criteria = Criteria(
        **_identity(found),
        **_stated(found, quantities, names),
        excluded_categories=excluded.categories,
        excluded_brands=excluded.brands,
        excluded_features=excluded.features,
        marketplace=marketplace,
        order=order,
    )
    alternatives = alternatives_of(rest, found, criteria, names)
    return Reading(
        text,
        together(alternatives, criteria) if alternatives else criteria,
        found.noun,
        _loose(found, question),
        bool(lexicon.OTHER_TOPIC.search(text)),
        alternatives=alternatives,
    )


def _loose(found: Wanted, question: str) -> frozenset[str]:
    """Words with a capital inside a sentence are names, which nothing can stand in for."""
    names = {name.casefold() for name in PROPER.findall(question[:LONGEST])}
    return frozenset(found.loose) - names


def _take_marketplace(text: str) -> tuple[str, str | None]:
    found = lexicon.MARKETPLACE.search(text)
    return (lexicon.MARKETPLACE.sub(gap, text), found[1]) if found else (text, None)


def _take_order(text: str) -> tuple[str, Order]:
    order = Order.RELEVANCE
    for pattern, meaning in ORDERS:
        if pattern.search(text):
            order = meaning if order is Order.RELEVANCE else order
            text = pattern.sub(gap, text)
    return text, order


def _identity(found: Wanted) -> dict[str, object]:
    noun = found.noun
    if noun is None:
        return {"brands": tuple(found.brands), "terms": tuple(found.terms)}
    if noun.categories:
        kind: dict[str, object] = {"categories": _narrowed(found), "kind": noun.feature()}
        return kind | {"brands": tuple(found.brands), "terms": tuple(found.terms)}
    if noun.accessory:
        terms = dict.fromkeys([*found.terms, *noun.said.split()])
        return {"brands": tuple(found.brands), "terms": tuple(terms)}
    return {"brands": tuple(found.brands), "terms": tuple(found.terms)}


def _narrowed(found: Wanted) -> tuple[str, ...]:
    """Of "mens-shoes" and "womens-shoes" the one that the question's other words name."""
    categories = found.noun.categories if found.noun else ()
    said = set(words_of(" ".join([*found.terms, *found.wishes])))
    named = tuple(category for category in categories if said.intersection(words_of(category)))
    return named or categories


def _stated(found: Wanted, quantities: list[Quantity], names: Names) -> dict[str, object]:
    low, high, currency = price_of(quantities, names.currency)
    noun = found.noun
    kinds = noun.kinds or noun.categories if noun else ()
    if noun and noun.accessory:
        # "Bag for a 15 inch laptop": the figure is the laptop's.
        quantities = [quantity for quantity in quantities if quantity.subject in {"rating", "reviews"}]
    bounds = bounds_of(quantities, kinds)
    features, more = _measurable(found.features, kinds)
    if noun and not noun.categories and not noun.accessory:
        features = [noun.feature(), *features]
    return {
        "price_min": low,
        "price_max": high,
        "currency": currency,
        "bounds": (*bounds, *more),
        "features": tuple(dict.fromkeys(features)),
        "wishes": tuple(dict.fromkeys(found.wishes)),
    }


def _measurable(features: list[Feature], kinds: tuple[str, ...]) -> tuple[list[Feature], list[Bound]]:
    """Phones and tablets state their charging in watts: fast is 18 W or more there."""
    if not {"smartphones", "tablets"}.intersection(kinds):
        return features, []
    fast = [feature for feature in features if feature.name == "fast charging"]
    limits = [Bound(name="charging_watts", minimum=FAST_CHARGING_WATTS) for _ in fast[:1]]
    return [feature for feature in features if feature not in fast], limits
