"""Words of a question joined into what they name: a brand, a kind of product, a feature, or themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

from shopassist.assistant import lexicon
from shopassist.assistant.feature_words import FEATURES
from shopassist.assistant.names import Names, Noun
from shopassist.assistant.tokens import PhraseTable, Token
from shopassist.models.criteria import Feature

EXCLUDED = "xexcludedx"
"""The word that stands for any wording of a negation."""

_FEATURES = PhraseTable(FEATURES)
LONGEST_BRAND = 3


@dataclass(frozen=True, slots=True)
class Phrase:
    """One or more words with one meaning."""

    said: str
    words: tuple[str, ...]
    joined: bool
    punctuated: bool
    measured: bool
    noun: Noun | None = None
    feature: Feature | None = None
    brand: str | None = None

    @property
    def word(self) -> str:
        """Its only word, or an empty text for a phrase of several."""
        return self.words[0] if len(self.words) == 1 else ""

    @property
    def plain(self) -> bool:
        """Whether it is a word that nothing is known about."""
        return self.noun is None and self.feature is None and self.brand is None

    @property
    def filler(self) -> bool:
        """Whether it says nothing about a product."""
        return self.plain and (self.word in lexicon.STOP_WORDS or (self.measured and self.word in lexicon.MEASURED))

    @property
    def names_model(self) -> bool:
        """Whether it belongs to the name of a model or a line of products."""
        return names_model(self.word) or names_model(self.said)


def names_model(word: str) -> bool:
    """Whether a word belongs to the name of a model or a line of products."""
    return word in lexicon.LINES or any(c.isdigit() for c in word)


def phrases_of(tokens: Sequence[Token], names: Names) -> list[Phrase]:
    """The phrases of a question in order, the longest that is known at each place."""
    phrases, place = [], 0
    while place < len(tokens):
        phrase = _phrase(tokens, place, names)
        phrases.append(phrase)
        place += len(phrase.words)
    return phrases


def _phrase(tokens: Sequence[Token], place: int, names: Names) -> Phrase:
    token = tokens[place]
    # "T-Mobile" is a name, not a mobile.
    initial = place > 0 and token.joined and len(tokens[place - 1].word) == 1 and tokens[place - 1].word.isalpha()
    noun = None if initial else names.nouns.at(tokens, place)
    feature = _FEATURES.at(tokens, place)
    brand = _brand(tokens, place, names)
    length = max((found[0] for found in (noun, feature, brand) if found), default=1)
    part = tokens[place : place + length]
    if length == 1 and token.beside_blank and token.word in lexicon.MEASURED:
        return _joined(part)
    if brand and brand[0] == length:
        return _joined(part, brand=brand[1])
    return _joined(
        part,
        noun=noun[1] if noun and noun[0] == length else None,
        feature=feature[1] if feature and feature[0] == length else None,
    )


def _joined(
    part: Sequence[Token], noun: Noun | None = None, feature: Feature | None = None, brand: str | None = None
) -> Phrase:
    return Phrase(
        said=" ".join(token.said for token in part),
        words=tuple(token.word for token in part),
        joined=part[0].joined,
        punctuated=part[0].punctuated,
        measured=any(token.beside_blank for token in part),
        noun=noun,
        feature=feature,
        brand=brand,
    )


def _brand(tokens: Sequence[Token], place: int, names: Names) -> tuple[int, str] | None:
    found = names.brands.at(tokens, place) or _spaced_brand(tokens, place, names)
    if found is None or found[0] > 1 or tokens[place].word not in lexicon.STOP_WORDS:
        return found
    # "Nothing phone" names a brand, "nothing over 20000" does not.
    following = tokens[place + 1] if place + 1 < len(tokens) else None
    named = following is not None and following.joined and following.word not in lexicon.STOP_WORDS
    return found if named else None


def _spaced_brand(tokens: Sequence[Token], place: int, names: Names) -> tuple[int, str] | None:
    """A brand that was written apart ("one plus")."""
    joined = tokens[place].word
    for length in range(2, LONGEST_BRAND + 1):
        if place + length > len(tokens) or not tokens[place + length - 1].joined:
            return None
        joined += tokens[place + length - 1].word
        if joined in names.joined_brands:
            return length, names.joined_brands[joined]
    return None
