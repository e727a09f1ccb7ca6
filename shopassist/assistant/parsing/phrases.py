"""Tokens of a question, the names that the catalogue knows, and the phrases that the tokens form."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.lexicon import ACCESSORY_NOUNS, ACCESSORY_WORDS, AMBIGUOUS_NOUNS, DEVICE_NOUNS
from shopassist.catalog.models import WORD, Feature, Vocabulary, words_of

T = TypeVar("T")

_PUNCTUATION = re.compile(r"[.,;:?!()\[\]{}\"“”]")


@dataclass(slots=True)
class Token:
    """A word of a question: `word` as in `Product.words`, `text` as written.

    `is_adjacent`: only a space or a hyphen separates it from the previous word. `beside_number`: it is next to a number
    that was understood.
    """

    word: str
    text: str
    is_adjacent: bool
    follows_punctuation: bool
    beside_number: bool


def _tokenise(text: str) -> list[Token]:
    """Split a normalised text into tokens; possessives lose their apostrophe."""
    text = text.replace("'", "")
    tokens: list[Token] = []
    end = 0
    for match in WORD.finditer(text):
        between = text[end : match.start()]
        end = match.end()
        joined = bool(tokens) and between.strip(" -/&+") == ""
        beside_number = lexicon.NUMBER_MARK in {between.rstrip(" ")[-1:], text[end : end + 2].lstrip(" ")}
        punctuated = bool(_PUNCTUATION.search(between))
        tokens += [Token(word, match[0], joined, punctuated, beside_number) for word in words_of(match[0])]
    return tokens


class PhraseTable(Generic[T]):
    """Finds the longest known phrase at a position of a question. Phrases are compared by their `words_of`."""

    def __init__(self, phrases: Mapping[str, T]) -> None:
        self._table = {tuple(words_of(phrase)): value for phrase, value in phrases.items()}
        self._table.pop((), None)
        self._longest = max((len(key) for key in self._table), default=0)

    def match_at(self, tokens: Sequence[Token], place: int) -> tuple[int, T] | None:
        """Return the length of the longest phrase that starts at `place`, and its value."""
        words = [tokens[place].word]
        following = itertools.takewhile(lambda token: token.is_adjacent, tokens[place + 1 : place + self._longest])
        words += [token.word for token in following]
        lengths = range(len(words), 0, -1)
        return next(((n, self._table[key]) for n in lengths if (key := tuple(words[:n])) in self._table), None)


@dataclass(frozen=True, slots=True)
class ProductNoun:
    """A noun for products: the kinds that it means, and the catalogue's categories for them."""

    text: str
    kinds: tuple[str, ...]
    categories: tuple[str, ...]
    accessory: bool

    def to_feature(self) -> Feature:
        """Return the feature that a product without a category must state to be meant."""
        kinds = () if self.accessory else self.kinds
        phrases = [
            phrase for kind in kinds for phrase in DEVICE_NOUNS.get(kind, ()) if phrase not in lexicon.VAGUE_NOUNS
        ]
        return Feature(name=self.text, wordings=tuple(dict.fromkeys([self.text, *phrases])))


class VocabularyIndex:
    """Index of the brands, categories and currencies of the catalogue.

    `market_currency` is that of prices without a mark, unless the catalogue has only one other currency.
    """

    def __init__(self, vocabulary: Vocabulary, market_currency: str) -> None:
        self.brands = PhraseTable({brand: brand.lower() for brand in vocabulary.brands})
        self.joined_brands = {"".join(words_of(brand)): brand.lower() for brand in vocabulary.brands}
        self.spelling = {brand.lower(): brand for brand in vocabulary.brands}
        currencies = set(vocabulary.currencies)
        is_sole = len(currencies) == 1 and market_currency not in currencies
        self.currency = currencies.pop() if is_sole else market_currency
        self.nouns = PhraseTable(_index_nouns(vocabulary.categories))

    def spell_brand(self, brand: str) -> str:
        """Return a brand as the catalogue spells it."""
        return self.spelling.get(brand, brand)

    def spell_brands(self, brands: Iterable[str]) -> str:
        """Return alternative brands as the catalogue spells them, joined by "or"."""
        return " or ".join(map(self.spell_brand, brands))


def _fold(phrase: str) -> str:
    return " ".join(words_of(phrase))


def _index_nouns(categories: tuple[str, ...]) -> dict[str, ProductNoun]:
    """Return all nouns for kinds of products: those of the lexicon and the catalogue's categories."""
    named, own = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for category in categories:
        words = words_of(category)
        named[" ".join(words)].add(category.lower())
        for phrase in {" ".join(words), words[-1]} if words else ():
            own[phrase].add(category.lower())
    phrases_by_kind = DEVICE_NOUNS | ACCESSORY_NOUNS
    by_kind = {
        kind: tuple(sorted({category for phrase in (kind, *phrases) for category in named.get(_fold(phrase), ())}))
        for kind, phrases in phrases_by_kind.items()
    }
    nouns = {
        phrase: ProductNoun(phrase, (), tuple(sorted(found)), words_of(phrase)[-1] in ACCESSORY_WORDS)
        for phrase, found in own.items()
    }
    meanings = [
        *((phrase, (kind,)) for kind, phrases in phrases_by_kind.items() for phrase in (*phrases, kind)),
        *AMBIGUOUS_NOUNS.items(),
    ]
    for phrase, kinds in meanings:
        folded = _fold(phrase)
        found = tuple(category for kind in kinds for category in by_kind[kind])
        if not found and phrase not in AMBIGUOUS_NOUNS:
            found = tuple(sorted(own.get(folded, ())))
        if phrase not in kinds or folded not in nouns:
            nouns[folded] = ProductNoun(phrase, kinds, found, kinds[0] in ACCESSORY_NOUNS)
    return nouns


_FEATURE_PHRASES = PhraseTable(lexicon.FEATURE_BY_PHRASE)
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


def read_phrases(text: str, names: VocabularyIndex) -> tuple[list[Phrase], dict[str, object]]:
    """Return the phrases of a normalised text in order, and the criteria for what the shopper excluded.

    At each position the longest known phrase is taken.
    """
    tokens = _tokenise(lexicon.NEGATION_PATTERN.sub(f" {lexicon.NEGATION_MARKER} ", text))
    phrases, place = list[Phrase](), 0
    while place < len(tokens):
        phrases.append(_read_phrase(tokens, place, names))
        place += len(phrases[-1].words)
    return _extract_exclusions(phrases)


def _read_phrase(tokens: Sequence[Token], place: int, names: VocabularyIndex) -> Phrase:
    token = tokens[place]
    # The second word of "T-Mobile" is not the noun.
    initial = place > 0 and token.is_adjacent and len(tokens[place - 1].word) == 1 and tokens[place - 1].word.isalpha()
    noun = None if initial else names.nouns.match_at(tokens, place)
    feature = _FEATURE_PHRASES.match_at(tokens, place)
    brand = _find_brand(tokens, place, names)
    length = max((found[0] for found in (noun, feature, brand) if found), default=1)
    part = tokens[place : place + length]
    known = not (length == 1 and token.beside_number and token.word in lexicon.MEASURE_WORDS)
    is_brand = known and brand is not None and brand[0] == length
    is_other = known and not is_brand
    return Phrase(
        text=" ".join(token.text for token in part),
        words=tuple(token.word for token in part),
        is_adjacent=token.is_adjacent,
        follows_punctuation=token.follows_punctuation,
        beside_number=any(token.beside_number for token in part),
        noun=noun[1] if is_other and noun and noun[0] == length else None,
        feature=feature[1] if is_other and feature and feature[0] == length else None,
        brand=brand[1] if is_brand and brand else None,
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
SILENT_WORDS = lexicon.STOP_WORDS | lexicon.WISH_WORDS | lexicon.CONNECTIVES | {lexicon.NEGATION_MARKER}
"""Words that end an exclusion."""


def _extract_exclusions(phrases: list[Phrase]) -> tuple[list[Phrase], dict[str, object]]:
    """Split the phrases into those that are asked for and the criteria for the excluded ones."""
    kept: list[Phrase] = []
    excluded: list[list[Phrase]] = []
    place = 0
    while place < len(phrases):
        if phrases[place].word == lexicon.NEGATION_MARKER:
            place = _read_excluded(phrases, place + 1, excluded)
        else:
            kept.append(phrases[place])
            place += 1
    return kept, _build_exclusions(excluded)


def _read_excluded(phrases: list[Phrase], place: int, excluded: list[list[Phrase]]) -> int:
    """Read what follows a negation into `excluded` and return the next place.

    It is one item, or several of one type joined by "or", "and" or a comma.
    """
    is_brand: bool | None = None
    while length := _count_excluded_phrases(phrases, place):
        if is_brand is None:
            is_brand = phrases[place].brand is not None
        elif is_brand != (phrases[place].brand is not None):
            break
        excluded.append(phrases[place : place + length])
        place += length
        following = phrases[place] if place < len(phrases) else None
        if following is None:
            break
        if following.word in EXCLUSION_JOINERS and _count_excluded_phrases(phrases, place + 1):
            if is_brand and not phrases[place + 1].brand:
                break
            place += 1
        elif not (following.brand and following.follows_punctuation):
            break
    return place


def _count_excluded_phrases(phrases: list[Phrase], place: int) -> int:
    """Return how many phrases from `place` on are one excluded item: one known phrase, or several unknown words."""
    length = 0
    for phrase in phrases[place : place + MAX_UNKNOWN_WORDS]:
        is_silent = phrase.is_unknown and phrase.word in SILENT_WORDS
        if is_silent or (length and not phrase.is_adjacent):
            break
        if not phrase.is_unknown:
            return max(length, 1)
        length += 1
    return length


def _build_exclusions(items: list[list[Phrase]]) -> dict[str, object]:
    found: dict[str, list[str | Feature]] = {"excluded_categories": [], "excluded_brands": [], "excluded_features": []}
    for first, *others in items:
        if first.brand:
            found["excluded_brands"].append(first.brand)
        elif first.feature:
            found["excluded_features"].append(first.feature)
        elif first.noun and first.noun.categories:
            found["excluded_categories"] += first.noun.categories
        else:
            text = " ".join(phrase.text for phrase in (first, *others))
            found["excluded_features"].append(Feature(name=text, wordings=(text,)))
    return {name: tuple(dict.fromkeys(values)) for name, values in found.items()}
