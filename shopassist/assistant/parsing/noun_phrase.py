"""Find the requested product in the phrases and assign every other phrase a role."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.phrases import Phrase
from shopassist.assistant.parsing.vocabulary import ProductNoun
from shopassist.catalog.attributes import PREFERENCES
from shopassist.catalog.criteria import Feature

SEGMENT_OPENERS = lexicon.CONNECTIVES | lexicon.COMPATIBILITY_WORDS


@dataclass(slots=True)
class RequestedProduct:
    """What the words of a question ask for. `droppable_terms` are the terms that only describe."""

    noun: ProductNoun | None = None
    brands: list[str] = field(default_factory=list)
    features: list[Feature] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)
    preferences: list[str] = field(default_factory=list)
    droppable_terms: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Segment:
    """The phrases between two connectives or punctuation marks, and the connective before them.

    `models` holds the ids (`id()`) of phrases that are part of the name of a model.
    """

    opening: str
    phrases: tuple[Phrase, ...]
    models: frozenset[int]


def find_requested_product(phrases: Sequence[Phrase]) -> RequestedProduct:
    """Return the product that the phrases ask for."""
    segments = _split_segments(phrases)
    result = RequestedProduct()
    head = _find_head(segments)
    other = _find_alternative_head(segments, head)
    result.noun = head.noun if head else None
    if result.noun and other:
        result.noun = _merge_nouns(result.noun, other.noun)
    reached = False
    last: Phrase | None = None
    for segment in segments:
        for place, phrase in enumerate(segment.phrases):
            following = segment.phrases[place + 1 :]
            before, last = last, phrase
            if (
                place == 0
                and segment.opening in lexicon.OR_WORDS
                and _merge_alternative_feature(before, phrase, result)
            ):
                continue
            if phrase is head or phrase is other:
                reached = True
                _add_head_feature(phrase, result)
            elif phrase.brand:
                _assign_brand(phrase, following, segment, result)
            elif not phrase.is_filler:
                _assign_phrase(phrase, segment, result, after_head=reached and segment.opening != "")
    _name_unknown_product(segments, result)
    result.terms = list(dict.fromkeys(result.terms))
    return result


def _merge_alternative_feature(before: Phrase | None, phrase: Phrase, result: RequestedProduct) -> bool:
    """Merge the two features of "AMOLED or OLED" into one with the wordings of both; return whether that was done."""
    if before is None or before.feature is None or phrase.feature is None or before.feature not in result.features[-1:]:
        return False
    one, other = before.feature, phrase.feature
    if one.denying_attribute or other.denying_attribute:
        # A merged feature could not be denied by the attribute of only one of them, so both stay required.
        return False
    if one != other:
        wordings = tuple(dict.fromkeys([*one.wordings, *other.wordings]))
        result.features[-1] = Feature(name=f"{one.name} or {other.name}", wordings=wordings)
    return True


def _split_segments(phrases: Sequence[Phrase]) -> list[Segment]:
    segments: list[Segment] = []
    opening, current = "", list[Phrase]()
    for phrase in phrases:
        connective = phrase.is_unknown and phrase.word in SEGMENT_OPENERS
        if (connective or phrase.follows_punctuation) and current:
            segments.append(Segment(opening, tuple(current), _find_model_phrases(current)))
            # A punctuation mark ends the role of the connective.
            current, opening = [], "" if phrase.follows_punctuation else opening
        if connective:
            opening = phrase.word
        else:
            current.append(phrase)
    if current:
        segments.append(Segment(opening, tuple(current), _find_model_phrases(current)))
    return segments


def _find_head(segments: Sequence[Segment]) -> Phrase | None:
    """Return the last noun of the first unbroken run of words with a noun."""
    ordered = sorted(segments, key=lambda segment: segment.opening in lexicon.COMPATIBILITY_WORDS | {"with"})
    part: Phrase | None = None
    for segment in ordered:
        if part is not None and segment.opening not in lexicon.AND_WORDS:
            break
        head: Phrase | None = None
        before: Phrase | None = None
        for phrase in segment.phrases:
            if head is not None and (phrase.is_filler or not phrase.is_adjacent or _is_part(phrase, before)):
                break
            before = phrase
            if phrase.noun is not None:
                head = phrase
        if head is not None and head.word not in PREFERENCES:
            return head
        # In "good camera and battery phone" the noun may be a part of the product named in the next segment.
        part = part or head
    return part


def _find_alternative_head(segments: Sequence[Segment], head: Phrase | None) -> Phrase | None:
    """Return the second noun of "headphones or earbuds"."""
    for segment, following in itertools.pairwise(segments):
        if segment.phrases[-1] is head and following.opening in lexicon.OR_WORDS:
            other = _find_head([following])
            one, two = head.noun if head else None, other.noun if other else None
            alike = (
                one and two and not (one.accessory or two.accessory) and bool(one.categories) == bool(two.categories)
            )
            return other if alike else None
    return None


def _merge_nouns(one: ProductNoun, two: ProductNoun | None) -> ProductNoun:
    if two is None:
        return one
    kinds, categories = (*one.kinds, *two.kinds), (*one.categories, *two.categories)
    return ProductNoun(f"{one.text} or {two.text}", kinds, tuple(dict.fromkeys(categories)), accessory=False)


def _is_part(phrase: Phrase, before: Phrase | None) -> bool:
    """Return whether a noun is a part of the product, as in "phone big battery"."""
    return phrase.word in PREFERENCES and before is not None and before.word in lexicon.WISH_WORDS


def _add_head_feature(phrase: Phrase, result: RequestedProduct) -> None:
    if phrase.feature:
        result.features.append(phrase.feature)


def _assign_brand(phrase: Phrase, following: Sequence[Phrase], segment: Segment, result: RequestedProduct) -> None:
    """Add a brand; it becomes a term if it is that of the device of an accessory or of a component."""
    brand = phrase.brand or ""
    noun = result.noun
    accessory = noun is not None and noun.accessory
    names_device = bool(following) and (
        following[0].is_model_name
        or following[0].words[0] in lexicon.PRODUCT_LINES
        or (following[0].noun is not None and not following[0].noun.accessory)
    )
    if (
        segment.opening in lexicon.COMPATIBILITY_WORDS
        or (accessory and names_device)
        or (brand in lexicon.CHIP_MAKERS and noun is not None and not accessory)
    ):
        result.terms.append(phrase.text)
    elif brand not in result.brands:
        result.brands.append(brand)


def _assign_phrase(phrase: Phrase, segment: Segment, result: RequestedProduct, *, after_head: bool) -> None:
    accessory = result.noun is not None and result.noun.accessory
    compatible = segment.opening in lexicon.COMPATIBILITY_WORDS
    is_had = after_head and not compatible and not phrase.beside_number
    if phrase.feature and (is_had or not _is_other_kind(phrase, result.noun)):
        result.features.append(phrase.feature)
    elif phrase.word in lexicon.WISH_WORDS or segment.opening in lexicon.CLAUSE_OPENERS:
        result.preferences.append(phrase.text)
    elif phrase.noun is not None and not accessory:
        result.preferences.extend(phrase.text.split())
    elif (phrase.word in PREFERENCES and after_head) or (
        compatible and not accessory and result.noun is not None and not phrase.is_model_name
    ):
        result.preferences.append(phrase.text)
    else:
        result.terms.extend(phrase.text.split())
        if phrase.noun is None and phrase.word not in lexicon.COLOURS and id(phrase) not in segment.models:
            result.droppable_terms.append(phrase.text)


def _is_other_kind(phrase: Phrase, head: ProductNoun | None) -> bool:
    """Return whether a feature is also the noun of another kind than the product: an "SSD laptop" is not an SSD."""
    return phrase.noun is not None and head is not None and not set(phrase.noun.kinds) & set(head.kinds)


def _find_model_phrases(phrases: Sequence[Phrase]) -> frozenset[int]:
    """Return the ids of unknown words in one run with a number or a product line ("Note 10 Plus")."""
    runs = [list(run) for continues, run in itertools.groupby(phrases, _may_belong_to_model) if continues]
    return frozenset(id(phrase) for run in runs if any(other.is_model_name for other in run) for phrase in run)


def _may_belong_to_model(phrase: Phrase) -> bool:
    return phrase.is_unknown and not phrase.is_filler and phrase.word not in lexicon.WISH_WORDS


def _name_unknown_product(segments: Sequence[Segment], result: RequestedProduct) -> None:
    """Without a known noun, require the last word of the first segment, even if it could be a preference."""
    if result.noun is not None:
        return
    first = next((s for s in segments if any(not p.is_filler for p in s.phrases)), None)
    meaningful = [phrase for phrase in first.phrases if not phrase.is_filler] if first else []
    last = meaningful[-1] if meaningful else None
    if last is None or not last.is_unknown:
        return
    if last.text in result.preferences and len(meaningful) > 1:
        result.preferences.remove(last.text)
        result.terms.append(last.text)
    if last.text in result.droppable_terms:
        result.droppable_terms.remove(last.text)
