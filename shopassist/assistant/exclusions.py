"""What a product must not be: "not boat", "except Sony or JBL", "without a notch"."""

from dataclasses import dataclass

from shopassist.assistant import lexicon
from shopassist.assistant.phrases import EXCLUDED, Phrase
from shopassist.models.criteria import Feature

LONGEST_UNKNOWN = 3
ALTERNATIVES = frozenset({"or", "and", "nor"})


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What was ruled out, in the fields of `Criteria`."""

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()


def take_exclusions(phrases: list[Phrase]) -> tuple[list[Phrase], Exclusions]:
    """The phrases that are asked for, and what is ruled out."""
    kept: list[Phrase] = []
    ruled_out: list[list[Phrase]] = []
    place = 0
    while place < len(phrases):
        if phrases[place].word != EXCLUDED:
            kept.append(phrases[place])
            place += 1
            continue
        group, place = _group(phrases, place + 1)
        ruled_out += group
    return kept, _exclusions(ruled_out)


def _group(phrases: list[Phrase], place: int) -> tuple[list[list[Phrase]], int]:
    """What follows a negation: one thing, or several of the same sort joined by "or", "and" or a comma."""
    things: list[list[Phrase]] = []
    while place < len(phrases):
        length = _length(phrases, place)
        if length == 0 or (things and bool(things[0][0].brand) != bool(phrases[place].brand)):
            break
        things.append(phrases[place : place + length])
        place += length
        if place < len(phrases) and phrases[place].word in ALTERNATIVES and _length(phrases, place + 1):
            if things[0][0].brand and not phrases[place + 1].brand:
                break
            place += 1
        elif not (place < len(phrases) and phrases[place].brand and phrases[place].punctuated):
            break
    return things, place


def _length(phrases: list[Phrase], place: int) -> int:
    """How many phrases name one thing from here: a known one alone, unknown words together."""
    if place >= len(phrases) or _silent(phrases[place]):
        return 0
    if not phrases[place].plain:
        return 1
    length = 1
    while place + length < len(phrases) and length < LONGEST_UNKNOWN:
        following = phrases[place + length]
        if not following.joined or not following.plain or _silent(following):
            break
        length += 1
    return length


def _silent(phrase: Phrase) -> bool:
    silent = lexicon.STOP_WORDS | lexicon.WISHES | lexicon.CONNECTIVES
    return phrase.plain and (phrase.word in silent or phrase.word == EXCLUDED)


def _exclusions(things: list[list[Phrase]]) -> Exclusions:
    categories: list[str] = []
    brands: list[str] = []
    features: list[Feature] = []
    for thing in things:
        first = thing[0]
        if first.brand:
            brands.append(first.brand)
        elif first.feature:
            features.append(first.feature)
        elif first.noun and first.noun.categories:
            categories += first.noun.categories
        else:
            said = " ".join(phrase.said for phrase in thing)
            features.append(Feature(name=said, wordings=(said,)))
    return Exclusions(tuple(dict.fromkeys(categories)), tuple(dict.fromkeys(brands)), tuple(dict.fromkeys(features)))
