"""What is said when nothing fits: only what is true of products that do not fit."""

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
async def test_a_near_miss_has_no_advantage_over_what_fits(
    question: str, sample: Any, asking: Callable[..., CatalogAssistant]
) -> None:
    """Nothing fits, so no product meets everything, and none is dearer than the cheapest that fits."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    assert answer.products == []
    assert len(answer.near_misses) == 3
    assert all(near.pros == [] and "Price is indicative" in near.cons[0] for near in answer.near_misses)
    assert all(len(near.cons) == 1 and near.misses for near in answer.near_misses)


async def test_an_old_price_stays_a_drawback_of_a_near_miss(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """It holds whether the product fits or not; without a date there is nothing to say."""
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
async def test_the_summary_says_what_stands_in_the_way(
    question: str, sentence: str, sample: Any, asking: Callable[..., CatalogAssistant]
) -> None:
    """The very words that no product states, or the limits that exclude each other, beside the nearest products."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    assert answer.products == []
    assert answer.near_misses
    assert sentence in answer.recommendations_summary
