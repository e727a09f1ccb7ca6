"""Find the requested product in the phrases and assign every other phrase a role."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.phrases import Phrase, ProductNoun
from shopassist.catalog.attributes import PREFERENCES
from shopassist.catalog.models import Feature

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


@dataclass(frozen=True)
class Segment:
    """The phrases between two connectives or punctuation marks, and the connective before them."""

    opening: str
    phrases: tuple[Phrase, ...]

    @cached_property
    def models(self) -> frozenset[int]:
        """The ids of unknown words in one run with a number or a product line ("Note 10 Plus")."""
        may_belong = [p.is_unknown and not p.is_filler and p.word not in lexicon.WISH_WORDS for p in self.phrases]
        runs = itertools.groupby(zip(self.phrases, may_belong, strict=True), key=lambda pair: pair[1])
        names = ([phrase for phrase, _ in run] for belongs, run in runs if belongs)
        return frozenset(id(p) for name in names if any(p.is_model_name for p in name) for p in name)


def find_requested_product(phrases: Sequence[Phrase]) -> RequestedProduct:
    """Return the product that the phrases ask for."""
    segments = _split_segments(phrases)
    head = _find_head(segments)
    noun = head.noun if head else None
    other = _find_alternative_head(segments, head)
    merged = _merge_nouns(noun, other.noun if other else None)
    heads = (head, other) if merged else (head,)
    result = RequestedProduct(noun=merged or noun)
    reached = False
    last: Phrase | None = None
    for segment in segments:
        for place, phrase in enumerate(segment.phrases):
            before, last = last, phrase
            is_alternative = place == 0 and segment.opening in lexicon.OR_WORDS
            if is_alternative and _merge_alternative_feature(before, phrase, result):
                continue
            if any(phrase is one for one in heads):
                reached = True
                result.features += [phrase.feature] if phrase.feature else []
            elif phrase.brand:
                _assign_brand(phrase, segment.phrases[place + 1 :], segment, result)
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
            segments.append(Segment(opening, tuple(current)))
            # A punctuation mark ends the role of the connective.
            current, opening = [], "" if phrase.follows_punctuation else opening
        if connective:
            opening = phrase.word
        else:
            current.append(phrase)
    return [*segments, Segment(opening, tuple(current))] if current else segments


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
            # In "phone big battery" the battery is a part.
            is_part = phrase.word in PREFERENCES and before is not None and before.word in lexicon.WISH_WORDS
            if head is not None and (phrase.is_filler or not phrase.is_adjacent or is_part):
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
            return _find_head([following])
    return None


def _merge_nouns(one: ProductNoun | None, two: ProductNoun | None) -> ProductNoun | None:
    """Return a noun for both; None if they are not alike."""
    if one is None or two is None or one.accessory or two.accessory or bool(one.categories) != bool(two.categories):
        return None
    kinds, categories = (*one.kinds, *two.kinds), (*one.categories, *two.categories)
    return ProductNoun(f"{one.text} or {two.text}", kinds, tuple(dict.fromkeys(categories)), accessory=False)


def _assign_brand(phrase: Phrase, following: Sequence[Phrase], segment: Segment, result: RequestedProduct) -> None:
    """Add a brand; it becomes a term if it is that of the device of an accessory or of a component."""
    brand = phrase.brand or ""
    noun, after = result.noun, following[0] if following else None
    names_device = after is not None and (
        after.is_model_name
        or after.words[0] in lexicon.PRODUCT_LINES
        or (after.noun is not None and not after.noun.accessory)
    )
    is_part = noun is not None and (names_device if noun.accessory else brand in lexicon.CHIP_MAKERS)
    if is_part or segment.opening in lexicon.COMPATIBILITY_WORDS:
        result.terms.append(phrase.text)
    elif brand not in result.brands:
        result.brands.append(brand)


def _assign_phrase(phrase: Phrase, segment: Segment, result: RequestedProduct, *, after_head: bool) -> None:
    accessory = result.noun is not None and result.noun.accessory
    compatible = segment.opening in lexicon.COMPATIBILITY_WORDS
    is_had = after_head and not compatible and not phrase.beside_number
    # An "SSD laptop" is not an SSD.
    is_other_kind = phrase.noun and result.noun and not set(phrase.noun.kinds) & set(result.noun.kinds)
    if phrase.feature and (is_had or not is_other_kind):
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


def _name_unknown_product(segments: Sequence[Segment], result: RequestedProduct) -> None:
    """Without a known noun, require the last word of the first segment, even if it could be a preference."""
    if result.noun is not None:
        return
    named = ([phrase for phrase in segment.phrases if not phrase.is_filler] for segment in segments)
    meaningful = next(filter(None, named), None)
    if meaningful is None or not meaningful[-1].is_unknown:
        return
    last = meaningful[-1]
    if last.text in result.preferences and len(meaningful) > 1:
        result.preferences.remove(last.text)
        result.terms.append(last.text)
    if last.text in result.droppable_terms:
        result.droppable_terms.remove(last.text)
