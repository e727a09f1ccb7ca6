"""Questions that name several products, such as "iPhone 15 or Galaxy S25"."""

from collections.abc import Sequence
from dataclasses import dataclass

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.noun_phrase import RequestedProduct, find_requested_product
from shopassist.assistant.parsing.phrases import extract_exclusions, is_model_name, parse_phrases
from shopassist.assistant.parsing.tokens import tokenise
from shopassist.assistant.parsing.vocabulary import ProductNoun, VocabularyIndex
from shopassist.catalog.criteria import Criteria, Feature
from shopassist.catalog.models import words_of

MAX_ALTERNATIVES = 3
"""As many as an answer shows."""

MAX_PIECES = 6
"""Some of them only lead in ("which is better, …")."""


@dataclass(frozen=True, slots=True)
class NamedProduct:
    """One of the alternatives: what names it."""

    brands: tuple[str, ...]
    terms: tuple[str, ...]
    features: tuple[Feature, ...]


def parse_alternatives(
    text: str, whole: RequestedProduct, criteria: Criteria, names: VocabularyIndex
) -> tuple[Criteria, ...]:
    """The criteria of each alternative that `text` names, `criteria` being those of the whole; empty for no such."""
    joined = lexicon.COMPARISON_SEPARATOR if lexicon.COMPARISON_PATTERN.search(text) else lexicon.OR_PATTERN
    pieces = [piece for piece in joined.split(text) if piece.strip()]
    if not 1 < len(pieces) <= MAX_PIECES:
        return ()
    parts = [find_requested_product(extract_exclusions(parse_phrases(tokenise(piece), names))[0]) for piece in pieces]
    parts = [part for part in parts if part.brands or part.terms or part.features]
    # Who compares names things, whatever their names look like.
    named = all(map(_names_model, parts)) or (
        joined is lexicon.COMPARISON_SEPARATOR and all(part.terms for part in parts)
    )
    if not 1 < len(parts) <= MAX_ALTERNATIVES or not named or _has_several_kinds(parts):
        return ()
    if not any(part.terms for part in parts):
        # "4G or 5G" is one criterion in two wordings.
        return ()
    thing = whole.noun if whole.noun and whole.noun.accessory else None
    sides: list[NamedProduct] = []
    for part in parts:
        sides.append(_build_named_product(part, sides[-1] if sides else None, thing))
    own = {feature for side in sides for feature in side.features}
    shared = tuple(feature for feature in criteria.features if feature not in own)
    return tuple(
        criteria.model_copy(update={"brands": side.brands, "terms": side.terms, "features": (*shared, *side.features)})
        for side in sides
    )


def combine_alternatives(alternatives: Sequence[Criteria], criteria: Criteria) -> Criteria:
    """`criteria` with the names of the alternatives as one term, for telling them; no product is looked up by it."""
    every = _shared_features(alternatives)
    shared = tuple(feature for feature in criteria.features if feature in every)
    name = " or ".join(name_alternatives(alternatives))
    return criteria.model_copy(update={"brands": (), "terms": (name,), "features": shared})


def name_alternatives(alternatives: Sequence[Criteria]) -> list[str]:
    """What each alternative is called."""
    every = _shared_features(alternatives)
    return [
        " ".join([*one.brands, *one.terms, *(feature.name for feature in one.features if feature not in every)])
        for one in alternatives
    ]


def _shared_features(alternatives: Sequence[Criteria]) -> set[Feature]:
    return set.intersection(*(set(alternative.features) for alternative in alternatives))


def _names_model(part: RequestedProduct) -> bool:
    if part.terms:
        return any(is_model_name(word) for term in part.terms for word in words_of(term))
    return any(is_model_name(feature.name) for feature in part.features)


def _has_several_kinds(parts: Sequence[RequestedProduct]) -> bool:
    """Whether the parts are things of several kinds, which no criteria say together."""
    return len({part.noun.kinds or part.noun.text for part in parts if part.noun}) > 1


def _build_named_product(
    part: RequestedProduct, before: NamedProduct | None, thing: ProductNoun | None
) -> NamedProduct:
    """Of "Galaxy S24 or S25" and "OnePlus 13 or 13R" the second is named by its number alone.

    `thing` is the accessory that is wanted for either: its parts name what it is for, maker and all.
    """
    brands, terms = tuple(part.brands), tuple(dict.fromkeys(part.terms))
    if thing and part.noun is None:
        brands, terms = (), (*brands, *terms)
    if thing and not thing.categories:
        terms = tuple(dict.fromkeys([*terms, *thing.text.split()]))
    if before and not brands and terms and all(any(c.isdigit() for c in term) for term in terms):
        lines = (term for term in before.terms if not any(c.isdigit() for c in term))
        return NamedProduct(before.brands, (*lines, *terms), ())
    return NamedProduct(brands, terms, () if terms else tuple(part.features))
