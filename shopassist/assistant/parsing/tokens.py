"""Split a question into tokens, and look up phrases in a sequence of tokens."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shopassist.catalog.models import WORD, words_of

T = TypeVar("T")

# Placeholders of what was understood keep the words around it from becoming adjacent.
NUMBER_MARK = "¦"
NUMBER_PLACEHOLDER = f" {NUMBER_MARK} "
PHRASE_PLACEHOLDER = " · "

MAX_QUESTION_LENGTH = 2000
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_PUNCTUATION = re.compile(r"[.,;:?!()\[\]{}\"“”]")
_SPACES = re.compile(r"\s+")


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


def normalise_question(question: str) -> str:
    """Return a question in lower case, without accents, with plain quotes and single spaces, cut to 2,000 letters."""
    plain = unicodedata.normalize(
        "NFKD", question[:MAX_QUESTION_LENGTH].replace("″", '"').replace(APOSTROPHE, "'")
    ).casefold()
    bare = "".join(c for c in plain if c.isspace() or (c.isprintable() and not unicodedata.combining(c)))
    return _SPACES.sub(" ", bare.replace(NUMBER_MARK, " ")).strip()[:MAX_QUESTION_LENGTH]


def tokenise(text: str) -> list[Token]:
    """Split a normalised text into tokens; possessives lose their apostrophe."""
    text = text.replace("'", "")
    tokens: list[Token] = []
    end = 0
    for match in WORD.finditer(text):
        between = text[end : match.start()]
        joined = bool(tokens) and between.strip(" -/&+") == ""
        beside_blank = (
            between.rstrip(" ").endswith(NUMBER_MARK) or text[match.end() : match.end() + 2].lstrip(" ") == NUMBER_MARK
        )
        punctuated = bool(_PUNCTUATION.search(between))
        tokens += [Token(word, match[0], joined, punctuated, beside_blank) for word in words_of(match[0])]
        end = match.end()
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
        for token in tokens[place + 1 : place + self._longest]:
            if not token.is_adjacent:
                break
            words.append(token.word)
        for length in range(len(words), 0, -1):
            value = self._table.get(tuple(words[:length]))
            if value is not None:
                return length, value
        return None
