"""Answers if nothing fits."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.query.models import ConversationContext

NOTHING_BEFORE = ConversationContext()


@pytest.mark.parametrize(
    "question", ["phone with 8GB RAM under 5000", "unlocked phone under 20000", "iphone under 20000"]
)
async def test_near_misses_have_no_pros(question: str, sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """Nothing fits, so a near miss has no pros and is not compared with cheaper products."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    assert answer.products == []
    assert len(answer.near_misses) == 3
    assert all(near.pros == [] and "Price is indicative" in near.cons[0] for near in answer.near_misses)
    assert all(len(near.cons) == 1 and near.misses for near in answer.near_misses)


async def test_old_price_is_a_con_of_a_near_miss(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """An old price is a con of a near miss; without a date there is none."""
    dated = product("A", category="laptops", price="900", price_as_of=date(2024, 9, 1))
    answer = await asking(make_catalog([dated, product("B", category="laptops", price="950")])).answer(
        "laptop under 500", NOTHING_BEFORE
    )
    assert [near.cons for near in answer.near_misses] == [["Price is indicative, as of September 2024"], []]


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("unlocked phone under 20000", "No product in the catalogue states “unlocked”: without it 50 would fit."),
        ("asdkjh qwe phone", "No product in the catalogue states “asdkjh” or “qwe”: without them 77 would fit."),
        ("iphone 15 unlocked", "No product in the catalogue states “unlocked”: without it 1 would fit."),
        ("phone under 10000 above 20000", "no price is both from ₹20,000 and up to ₹10,000."),
    ],
)
async def test_summary_names_the_obstacle(
    question: str, sentence: str, sample: Any, asking: Callable[..., CatalogAssistant]
) -> None:
    """The summary names the terms that no product has, or the limits that contradict each other."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    assert answer.products == []
    assert answer.near_misses
    assert sentence in answer.recommendations_summary
