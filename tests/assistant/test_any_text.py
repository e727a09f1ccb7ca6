"""Property tests: any text is parsed quickly and answered without an error."""

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.assistant.wording import to_product_criteria
from shopassist.catalog.models import Vocabulary
from shopassist.query.models import ConversationContext, ConversationMessage
from shopassist.settings import AssistantSettings

LONGEST = 2000
SECONDS = 0.25
KNOWN = VocabularyIndex(Vocabulary(("smartphones", "laptops"), ("Samsung", "Nothing", "Case Logic"), ("INR",)), "INR")
PARTS = (
    "phone laptop case for with without not under over between and or to max 8gb 16 GB ram ₹ $ Rs. 12,000 1.5 lakh 5g"
    " 4k inch 6.7 stars reviews + - / samsung nothing except cheaper instead best , . ( ) rated iphone 15 pro plus ssd"
)
WORDS = st.sampled_from(PARTS.split())
SENTENCES = st.lists(WORDS, max_size=60).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=LONGEST), SENTENCES))
def test_any_text_is_parsed(text: str) -> None:
    """Parsing never fails, limits are ordered, and the criteria can be described."""
    reading = parse_question(text, KNOWN)
    criteria = reading.criteria
    if criteria.price_min is not None and criteria.price_max is not None:
        assert criteria.price_min >= 0
    assert (criteria.currency is None) == (criteria.price_min is None and criteria.price_max is None)
    to_product_criteria(criteria, reading.noun.text if reading.noun else None, KNOWN)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=SENTENCES, before=st.lists(SENTENCES, max_size=3))
async def test_any_conversation_is_answered(
    question: str, before: list[str], sample_products: Any, make_catalog: Any
) -> None:
    """Any conversation gets an answer; all its products have a price and a link."""
    assistant = CatalogAssistant(make_catalog(sample_products), AssistantSettings())
    messages = [ConversationMessage(text=text, sender="user") for text in before]
    answer = await assistant.answer(question, ConversationContext(messages=messages))
    assert answer.recommendations_summary
    assert len(answer.products) <= 3
    assert all(shown.price > 0 and shown.link and shown.pros and shown.cons for shown in answer.products)


@pytest.mark.parametrize(
    "piece",
    [
        "under ", "1,", "1 ", "between 1 and ", "$", "not be ", "1", "a 1gb ", "not ", "rated ", "reviews of ", "case ",
        "phone phone ", "1-1-", "₹1k-", "\N{COMBINING ACUTE ACCENT}", "for the a an ", "max ", "one ", "/5 ",
    ],
)  # fmt: skip
def test_parsing_is_fast(piece: str) -> None:
    """Two thousand characters that provoke backtracking are parsed quickly."""
    text = (piece * LONGEST)[:LONGEST]
    started = time.perf_counter()
    parse_question(text, KNOWN)
    assert time.perf_counter() - started < SECONDS


def test_text_is_never_a_format_string(names: VocabularyIndex) -> None:
    """Braces and percent signs in a question are ordinary characters."""
    reading = parse_question("phone {0} {x.__class__} %s %(y)s under 500", names)
    assert reading.criteria.price_max == 500
