"""Group tokens into phrases (brand, noun, feature or plain word) and separate excluded ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.lexicon import FEATURE_BY_PHRASE
from shopassist.assistant.parsing.vocabulary import PhraseTable, ProductNoun, Token, VocabularyIndex
from shopassist.catalog.criteria import Feature

NEGATION_MARKER = "xexcludedx"
"""Replaces every wording of a negation."""

_FEATURE_PHRASES = PhraseTable(FEATURE_BY_PHRASE)
MAX_BRAND_WORDS = 3


@dataclass(frozen=True, slots=True)
class Phrase:
    """One or more words with one meaning: a noun, a feature, a brand, or an unknown word."""

    text: str
    words: tuple[str, ...]
    is_adjacent: bool
    follows_punctuation: bool
    beside_number: bool
    noun: ProductNoun | None = None
    feature: Feature | None = None
    brand: str | None = None

    @property
    def word(self) -> str:
        """The only word; empty for a phrase of several words."""
        return self.words[0] if len(self.words) == 1 else ""

    @property
    def is_unknown(self) -> bool:
        """Whether it is a word without a known meaning."""
        return self.noun is None and self.feature is None and self.brand is None

    @property
    def is_filler(self) -> bool:
        """Whether it has no meaning for the search."""
        return self.is_unknown and (
            self.word in lexicon.STOP_WORDS or (self.beside_number and self.word in lexicon.MEASURE_WORDS)
        )

    @property
    def is_model_name(self) -> bool:
        """Whether it is part of the name of a model or product line."""
        return is_model_name(self.word) or is_model_name(self.text)


def is_model_name(word: str) -> bool:
    """Return whether a word is part of the name of a model or product line."""
    return word in lexicon.PRODUCT_LINES or any(c.isdigit() for c in word)


def parse_phrases(tokens: Sequence[Token], names: VocabularyIndex) -> list[Phrase]:
    """Return the phrases of a question in order: at each position the longest known one."""
    phrases, place = [], 0
    while place < len(tokens):
        phrase = _parse_phrase(tokens, place, names)
        phrases.append(phrase)
        place += len(phrase.words)
    return phrases


def _parse_phrase(tokens: Sequence[Token], place: int, names: VocabularyIndex) -> Phrase:
    token = tokens[place]
    # The second word of "T-Mobile" is not the noun.
    initial = place > 0 and token.is_adjacent and len(tokens[place - 1].word) == 1 and tokens[place - 1].word.isalpha()
    noun = None if initial else names.nouns.match_at(tokens, place)
    feature = _FEATURE_PHRASES.match_at(tokens, place)
    brand = _find_brand(tokens, place, names)
    length = max((found[0] for found in (noun, feature, brand) if found), default=1)
    part = tokens[place : place + length]
    if length == 1 and token.beside_number and token.word in lexicon.MEASURE_WORDS:
        return _join_tokens(part)
    if brand and brand[0] == length:
        return _join_tokens(part, brand=brand[1])
    return _join_tokens(
        part,
        noun=noun[1] if noun and noun[0] == length else None,
        feature=feature[1] if feature and feature[0] == length else None,
    )


def _join_tokens(
    part: Sequence[Token], noun: ProductNoun | None = None, feature: Feature | None = None, brand: str | None = None
) -> Phrase:
    return Phrase(
        text=" ".join(token.text for token in part),
        words=tuple(token.word for token in part),
        is_adjacent=part[0].is_adjacent,
        follows_punctuation=part[0].follows_punctuation,
        beside_number=any(token.beside_number for token in part),
        noun=noun,
        feature=feature,
        brand=brand,
    )


def _find_brand(tokens: Sequence[Token], place: int, names: VocabularyIndex) -> tuple[int, str] | None:
    found = names.brands.match_at(tokens, place) or _find_spaced_brand(tokens, place, names)
    if found is None or found[0] > 1 or tokens[place].word not in lexicon.STOP_WORDS:
        return found
    # "Nothing phone" contains a brand, "nothing over 20000" does not.
    following = tokens[place + 1] if place + 1 < len(tokens) else None
    named = following is not None and following.is_adjacent and following.word not in lexicon.STOP_WORDS
    return found if named else None


def _find_spaced_brand(tokens: Sequence[Token], place: int, names: VocabularyIndex) -> tuple[int, str] | None:
    """Find a brand that is written as several words ("one plus")."""
    joined = tokens[place].word
    for length in range(2, MAX_BRAND_WORDS + 1):
        if place + length > len(tokens) or not tokens[place + length - 1].is_adjacent:
            return None
        joined += tokens[place + length - 1].word
        if joined in names.joined_brands:
            return length, names.joined_brands[joined]
    return None


MAX_UNKNOWN_WORDS = 3
EXCLUSION_JOINERS = frozenset({"or", "and", "nor"})


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What the shopper excluded, in the types of `Criteria`."""

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()


def extract_exclusions(phrases: list[Phrase]) -> tuple[list[Phrase], Exclusions]:
    """Split the phrases into those that are asked for and the exclusions."""
    kept: list[Phrase] = []
    excluded: list[list[Phrase]] = []
    place = 0
    while place < len(phrases):
        if phrases[place].word != NEGATION_MARKER:
            kept.append(phrases[place])
            place += 1
            continue
        group, place = _read_excluded(phrases, place + 1)
        excluded += group
    return kept, _build_exclusions(excluded)


def _read_excluded(phrases: list[Phrase], place: int) -> tuple[list[list[Phrase]], int]:
    """Return what follows a negation: one item, or several of one type joined by "or", "and" or a comma."""
    items: list[list[Phrase]] = []
    while place < len(phrases):
        length = _count_excluded_phrases(phrases, place)
        if length == 0 or (items and bool(items[0][0].brand) != bool(phrases[place].brand)):
            break
        items.append(phrases[place : place + length])
        place += length
        if (
            place < len(phrases)
            and phrases[place].word in EXCLUSION_JOINERS
            and _count_excluded_phrases(phrases, place + 1)
        ):
            if items[0][0].brand and not phrases[place + 1].brand:
                break
            place += 1
        elif not (place < len(phrases) and phrases[place].brand and phrases[place].follows_punctuation):
            break
    return items, place


def _count_excluded_phrases(phrases: list[Phrase], place: int) -> int:
    """Return how many phrases from `place` on are one excluded item: one known phrase, or several unknown words."""
    if place >= len(phrases) or _ends_exclusion(phrases[place]):
        return 0
    if not phrases[place].is_unknown:
        return 1
    length = 1
    while place + length < len(phrases) and length < MAX_UNKNOWN_WORDS:
        following = phrases[place + length]
        if not following.is_adjacent or not following.is_unknown or _ends_exclusion(following):
            break
        length += 1
    return length


def _ends_exclusion(phrase: Phrase) -> bool:
    silent = lexicon.STOP_WORDS | lexicon.WISH_WORDS | lexicon.CONNECTIVES
    return phrase.is_unknown and (phrase.word in silent or phrase.word == NEGATION_MARKER)


def _build_exclusions(items: list[list[Phrase]]) -> Exclusions:
    categories: list[str] = []
    brands: list[str] = []
    features: list[Feature] = []
    for item in items:
        first = item[0]
        if first.brand:
            brands.append(first.brand)
        elif first.feature:
            features.append(first.feature)
        elif first.noun and first.noun.categories:
            categories += first.noun.categories
        else:
            text = " ".join(phrase.text for phrase in item)
            features.append(Feature(name=text, wordings=(text,)))
    return Exclusions(tuple(dict.fromkeys(categories)), tuple(dict.fromkeys(brands)), tuple(dict.fromkeys(features)))
