"""Spelling correction: replace unknown words by the nearest known word if nothing was found."""

import itertools
import re
from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from functools import partial

from shopassist.assistant.parsing import lexicon
from shopassist.assistant.parsing.lexicon import FEATURE_BY_PHRASE
from shopassist.assistant.parsing.vocabulary import ACCESSORY_NOUNS, AMBIGUOUS_NOUNS, DEVICE_NOUNS, VocabularyIndex
from shopassist.catalog.attributes import PREFERENCES
from shopassist.catalog.criteria import Criteria
from shopassist.catalog.models import words_of
from shopassist.catalog.ports import CatalogReader
from shopassist.query.models import ConversationContext

MIN_WORD_LENGTH = 4
MIN_SIMILARITY = 0.82
MAX_LOOKUPS = 6
"""Unknown words that are looked up."""

_NOUN_WORDS = (phrase for phrases in (DEVICE_NOUNS | ACCESSORY_NOUNS).values() for phrase in phrases)
KNOWN_WORDS = frozenset(
    words_of(" ".join([*_NOUN_WORDS, *AMBIGUOUS_NOUNS, *FEATURE_BY_PHRASE, *PREFERENCES, *lexicon.LIMIT_WORDS]))
)
"""Words of the grammar for products, features and limits."""

Corrections = Mapping[str, str]
"""Words as written, and their corrections in the spelling of the catalogue."""


async def find_corrections(catalog: CatalogReader, criteria: Criteria, names: VocabularyIndex) -> Corrections:
    """Return the terms that may be misspelt and the nearest known word for each."""
    written = {word: part for term in criteria.terms for part in term.split() for word in words_of(part)[:1]}
    unknown = [
        w for w in written if w.isalpha() and len(w) >= MIN_WORD_LENGTH and w not in KNOWN_WORDS | lexicon.STOP_WORDS
    ][:MAX_LOOKUPS]
    unknown = [w for w in unknown if not await catalog.search(Criteria(terms=(w,)), 1)]
    nearest = await catalog.find_corrections(unknown) if unknown else {}
    found = {}
    for word in unknown:
        candidates = sorted({*get_close_matches(word, KNOWN_WORDS), nearest.get(word, word)} - {word})
        best = max(candidates, key=partial(_rank_candidate, word), default=word)
        if best != word and get_similarity(word, best) >= MIN_SIMILARITY:
            found[written[word]] = names.spell_brand(best)
    return found


def _rank_candidate(word: str, candidate: str) -> tuple[float, int]:
    """Return the sort key of a candidate: similarity, then equal first letters, which are rarely misspelt."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(word, candidate, strict=False))
    return get_similarity(word, candidate), sum(1 for _ in same)


def get_similarity(one: str, other: str) -> float:
    """Return the similarity of two words from 0 to 1."""
    return SequenceMatcher(None, one, other).ratio()


def apply_corrections(text: str, corrected: Corrections) -> str:
    """Replace misspelt words in a text."""
    for written, meant in corrected.items():
        text = re.sub(rf"\b{re.escape(written)}\b", meant, text, flags=re.IGNORECASE)
    return text


def correct_context(context: ConversationContext, corrected: Corrections) -> ConversationContext:
    """Replace misspelt words in the earlier messages."""
    messages = [m.model_copy(update={"text": apply_corrections(m.text, corrected)}) for m in context.messages]
    last = apply_corrections(context.last_query, corrected) if context.last_query else None
    return context.model_copy(update={"messages": messages, "last_query": last})


def describe_corrections(corrected: Corrections) -> str:
    """Describe the corrections in a sentence; empty without any."""
    read = " and ".join(f"“{written}” as {meant}" for written, meant in corrected.items())
    return f"I read {read}." if read else ""
