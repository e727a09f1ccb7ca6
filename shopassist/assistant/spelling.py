"""Misspelt words: what a shopper may have meant by a word that nobody knows.

Asked only when nothing fits. A word of the catalogue is never corrected, nor is a word with a digit or a short one.
"""

import itertools
import re
from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from functools import partial

from shopassist.assistant import lexicon
from shopassist.assistant.feature_words import FEATURES, PREFERENCES
from shopassist.assistant.names import Names
from shopassist.assistant.nouns import ACCESSORIES, DEVICES, SEVERAL
from shopassist.assistant.port import Catalog
from shopassist.models.criteria import Criteria
from shopassist.models.query import ConversationContext
from shopassist.models.words import words_of

SHORTEST = 4
LEAST_LIKENESS = 0.82
MOST = 6
"""Unknown words that are looked up."""

_NOUNS = (phrase for phrases in (DEVICES | ACCESSORIES).values() for phrase in phrases)
OWN = frozenset(words_of(" ".join([*_NOUNS, *SEVERAL, *FEATURES, *PREFERENCES, *lexicon.LIMITS])))
"""The assistant's own words for products, features and limits."""

Corrections = Mapping[str, str]
"""From words as they were said to what they may mean, as the catalogue spells it."""


async def corrections(catalog: Catalog, criteria: Criteria, names: Names) -> Corrections:
    """The words among the terms that may be misspelt, and the nearest known word for each."""
    said = {word: part for term in criteria.terms for part in term.split() for word in words_of(part)[:1]}
    unknown = [w for w in said if w.isalpha() and len(w) >= SHORTEST and w not in OWN | lexicon.STOP_WORDS][:MOST]
    unknown = [w for w in unknown if not await catalog.search(Criteria(terms=(w,)), 1)]
    theirs = await catalog.correct(unknown) if unknown else {}
    found = {}
    for word in unknown:
        candidates = sorted({*get_close_matches(word, OWN), theirs.get(word, word)} - {word})
        best = max(candidates, key=partial(_nearness, word), default=word)
        if best != word and likeness(word, best) >= LEAST_LIKENESS:
            found[said[word]] = names.spelling.get(best, best)
    return found


def _nearness(word: str, candidate: str) -> tuple[float, int]:
    """Of two words that are as like, that with the same first letters is meant: those are rarely wrong."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(word, candidate, strict=False))
    return likeness(word, candidate), sum(1 for _ in same)


def likeness(one: str, other: str) -> float:
    """How alike two words are, from 0 to 1."""
    return SequenceMatcher(None, one, other).ratio()


def rewritten(text: str, corrected: Corrections) -> str:
    """`text` with the corrections in place."""
    for said, meant in corrected.items():
        text = re.sub(rf"\b{re.escape(said)}\b", meant, text, flags=re.IGNORECASE)
    return text


def rewritten_context(context: ConversationContext, corrected: Corrections) -> ConversationContext:
    """What was said before, with the corrections in place."""
    messages = [m.model_copy(update={"text": rewritten(m.text, corrected)}) for m in context.messages]
    last = rewritten(context.last_query, corrected) if context.last_query else None
    return context.model_copy(update={"messages": messages, "last_query": last})


def understood_words(corrected: Corrections) -> str:
    """The corrections in a sentence; empty without any."""
    read = " and ".join(f"“{said}” as {meant}" for said, meant in corrected.items())
    return f"I read {read}." if read else ""
