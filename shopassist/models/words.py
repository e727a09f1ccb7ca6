"""Words as the catalogue and the criteria both see them, so that a fact matches whoever wrote it."""

import re
import unicodedata

WORD = re.compile(r"[^\W_]+(?:\.\d+)?")
SHORTEST_PLURAL = 4


def words_of(text: str) -> list[str]:
    """The words of `text` in order: lower case, without accents, plurals folded ("Cases" and "case" are one word)."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in plain if not unicodedata.combining(c))
    return [_singular(word) for word in WORD.findall(bare)]


def _singular(word: str) -> str:
    if len(word) < SHORTEST_PLURAL or not word.isalpha():
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
