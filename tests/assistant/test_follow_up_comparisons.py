"""Follow-ups that compare with the shown products: “cheaper”, “better”, “something else”."""

from collections.abc import Callable
from typing import Any

import pytest


async def test_stated_price_replaces_the_derived_one(sample: Any, conversation: Callable[..., Any]) -> None:
    """“Something cheaper, under 10000” means 10,000."""
    answer = await conversation(sample, "best 5G phone under ₹15,000", "and something cheaper, under 10000?")
    assert answer.products
    assert answer.criteria.price_range.max == 10000
    assert "up to ₹10,000" in answer.recommendations_summary


@pytest.mark.parametrize(
    ("follow_up", "low", "high"),
    [
        ("more expensive, up to 6000", 2300, 6000),
        ("more expensive, up to 2000", None, 2000),
        ("more expensive, above 5000", 5000, None),
        ("cheaper, above 1000", 1000, 1498),
    ],
)
async def test_derived_limit_joins_a_stated_one(
    follow_up: str, low: float | None, high: float | None, sample: Any, conversation: Callable[..., Any]
) -> None:
    """A derived limit is added to a stated one, unless they contradict each other."""
    answer = await conversation(sample, "earbuds under 3000", follow_up)
    assert (answer.criteria.price_range.min, answer.criteria.price_range.max) == (low, high)


@pytest.mark.parametrize("question", ["phone under 30000", "laptop under 60000", "earbuds under 10000"])
async def test_better_means_more_expensive_within_the_budget(
    question: str, sample: Any, conversation: Callable[..., Any]
) -> None:
    """“Something better” finds other products above the price of the first one and within the budget."""
    before = await conversation(sample, question)
    after = await conversation(sample, question, "something better")
    assert after.products
    assert not {p.title for p in after.products} & {p.title for p in before.products}
    assert all(before.products[0].price < p.price <= before.criteria.price_range.max for p in after.products)


@pytest.mark.parametrize("follow_up", ["show me more", "anything else?", "other options", "something different"])
async def test_others_are_not_the_shown_products(follow_up: str, sample: Any, conversation: Callable[..., Any]) -> None:
    """Products that were shown are not shown again."""
    asked = ["laptop under 70000", follow_up, follow_up]
    answers = [await conversation(sample, *asked[:count]) for count in (1, 2, 3)]
    titles = [shown.title for answer in answers for shown in answer.products]
    assert len(titles) == len(set(titles)) == 9


async def test_answer_if_all_products_were_shown(
    make_catalog: Callable[..., Any], product: Callable[..., Any], conversation: Callable[..., Any]
) -> None:
    """Nothing else fits, and shown products are no near misses."""
    catalog = make_catalog([product("Alpha", category="laptops"), product("Beta", category="smartphones")])
    answer = await conversation(catalog, "laptop under 500", "something else")
    assert answer.products == answer.near_misses == []
    assert "nothing else in the catalogue fits" in answer.recommendations_summary
