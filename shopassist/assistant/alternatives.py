"""Several products in one question: "iPhone 15 or Galaxy S25", "compare OnePlus 13 and iQOO 13".

The question is cut at the words that join the alternatives. Where each part names a model of its own, each is looked
up for itself, under all that the question asks besides; else "or" joins brands and the like, as it always does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shopassist.assistant import lexicon
from shopassist.assistant.exclusions import take_exclusions
from shopassist.assistant.names import Names, Noun
from shopassist.assistant.nounphrase import Wanted, wanted
from shopassist.assistant.phrases import names_model, phrases_of
from shopassist.assistant.tokens import tokenised
from shopassist.models.criteria import Criteria, Feature
from shopassist.models.words import words_of

MOST = 3
"""As many as an answer shows."""

MOST_PIECES = 6
"""Some of them only lead in ("which is better, …")."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the alternatives: what names it."""

    brands: tuple[str, ...]
    terms: tuple[str, ...]
    features: tuple[Feature, ...]


def alternatives_of(text: str, whole: Wanted, criteria: Criteria, names: Names) -> tuple[Criteria, ...]:
    """The criteria of each alternative that `text` names, `criteria` being those of the whole; empty for no such."""
    joined = lexicon.COMPARED_WITH if lexicon.COMPARING.search(text) else lexicon.OR
    pieces = [piece for piece in joined.split(text) if piece.strip()]
    if not 1 < len(pieces) <= MOST_PIECES:
        return ()
    parts = [wanted(take_exclusions(phrases_of(tokenised(piece), names))[0]) for piece in pieces]
    parts = [part for part in parts if part.brands or part.terms or part.features]
    # Who compares names things, whatever their names look like.
    named = all(map(_names_one, parts)) or (joined is lexicon.COMPARED_WITH and all(part.terms for part in parts))
    if not 1 < len(parts) <= MOST or not named or _of_several_kinds(parts):
        return ()
    if not any(part.terms for part in parts):
        # "4G or 5G" is one criterion in two wordings.
        return ()
    thing = whole.noun if whole.noun and whole.noun.accessory else None
    sides: list[Side] = []
    for part in parts:
        sides.append(_side(part, sides[-1] if sides else None, thing))
    own = {feature for side in sides for feature in side.features}
    shared = tuple(feature for feature in criteria.features if feature not in own)
    return tuple(
        criteria.model_copy(update={"brands": side.brands, "terms": side.terms, "features": (*shared, *side.features)})
        for side in sides
    )


def together(alternatives: Sequence[Criteria], criteria: Criteria) -> Criteria:
    """`criteria` with the names of the alternatives as one term, for telling them; no product is looked up by it."""
    every = _shared(alternatives)
    shared = tuple(feature for feature in criteria.features if feature in every)
    name = " or ".join(names_of(alternatives))
    return criteria.model_copy(update={"brands": (), "terms": (name,), "features": shared})


def names_of(alternatives: Sequence[Criteria]) -> list[str]:
    """What each alternative is called."""
    every = _shared(alternatives)
    return [
        " ".join([*one.brands, *one.terms, *(feature.name for feature in one.features if feature not in every)])
        for one in alternatives
    ]


def _shared(alternatives: Sequence[Criteria]) -> set[Feature]:
    return set.intersection(*(set(alternative.features) for alternative in alternatives))


def _names_one(part: Wanted) -> bool:
    if part.terms:
        return any(names_model(word) for term in part.terms for word in words_of(term))
    return any(names_model(feature.name) for feature in part.features)


def _of_several_kinds(parts: Sequence[Wanted]) -> bool:
    """Whether the parts are things of several kinds, which no criteria say together."""
    return len({part.noun.kinds or part.noun.said for part in parts if part.noun}) > 1


def _side(part: Wanted, before: Side | None, thing: Noun | None) -> Side:
    """Of "Galaxy S24 or S25" and "OnePlus 13 or 13R" the second is named by its number alone.

    `thing` is the accessory that is wanted for either: its parts name what it is for, maker and all.
    """
    brands, terms = tuple(part.brands), tuple(dict.fromkeys(part.terms))
    if thing and part.noun is None:
        brands, terms = (), (*brands, *terms)
    if thing and not thing.categories:
        terms = tuple(dict.fromkeys([*terms, *thing.said.split()]))
    if before and not brands and terms and all(any(c.isdigit() for c in term) for term in terms):
        lines = (term for term in before.terms if not any(c.isdigit() for c in term))
        return Side(before.brands, (*lines, *terms), ())
    return Side(brands, terms, () if terms else tuple(part.features))
