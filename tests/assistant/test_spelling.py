"""Spelling correction if nothing fits otherwise."""

from collections.abc import Callable
from typing import Any

import pytest

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.query.models import ConversationContext

NOTHING_BEFORE = ConversationContext()


@pytest.mark.parametrize(
    ("misspelt", "right", "told"),
    [
        ("samsng phone under 20000", "samsung phone under 20000", "I read “samsng” as Samsung."),
        ("lapto with 16gb ram", "laptop with 16gb ram", "I read “lapto” as laptop."),
        ("blutooth earbuds", "bluetooth earbuds", "I read “blutooth” as bluetooth."),
        ("wireles mouse undr 2000", "wireless mouse under 2000", "I read “wireles” as wireless and “undr” as under."),
        ("samsng lapto or phone", "samsung laptop or phone", "“lapto” as laptop"),
    ],
)
async def test_misspelt_word_is_corrected(
    misspelt: str, right: str, told: str, sample: Any, asking: Callable[..., CatalogAssistant]
) -> None:
    """The answer is that of the corrected question, and it names the correction."""
    answer = await asking(sample).answer(misspelt, NOTHING_BEFORE)
    expected = await asking(sample).answer(right, NOTHING_BEFORE)
    assert answer.products == expected.products
    assert answer.products
    assert told in answer.recommendations_summary
    assert answer.criteria == expected.criteria


async def test_earlier_questions_are_corrected(sample: Any, conversation: Callable[..., Any]) -> None:
    """A follow-up continues from the corrected question."""
    answer = await conversation(sample, "samsng phone", "under 15000")
    assert answer.products
    assert answer.products == (await conversation(sample, "samsung phone", "under 15000")).products


@pytest.mark.parametrize("question", ["kodak camera", "boult earbuds", "mix phone", "s24x galaxy", "asdfgh qwerty"])
async def test_other_words_are_not_corrected(
    question: str, sample: Any, asking: Callable[..., CatalogAssistant]
) -> None:
    """Unknown names, short words, words with digits and gibberish are not replaced."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    assert answer.products == []
    assert "I read" not in answer.recommendations_summary


async def test_word_of_the_catalogue_is_not_corrected(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """“Phome” is not corrected if it is a word of a title."""
    catalog = make_catalog([product("Phome lamp", price="5000"), product("Beta phone", category="smartphones")])
    answer = await asking(catalog).answer("phome under 100", NOTHING_BEFORE)
    assert answer.products == []
    assert "I read" not in answer.recommendations_summary


async def test_no_correction_while_something_fits(
    sample: Any, asking: Callable[..., CatalogAssistant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word is looked up if the search finds products."""

    async def never(words: list[str]) -> dict[str, str]:
        raise AssertionError(words)

    monkeypatch.setattr(sample, "find_corrections", never)
    assert (await asking(sample).answer("best 5G phone under ₹12,000 with 8GB RAM", NOTHING_BEFORE)).products
