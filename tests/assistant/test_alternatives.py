"""Questions that name several products or kinds."""

from collections.abc import Callable
from typing import Any

import pytest

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.assistant.follow_ups import restore_question
from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.assistant.wording import to_product_criteria
from shopassist.query.models import ConversationContext

NOTHING_BEFORE = ConversationContext()


@pytest.mark.parametrize(
    ("question", "beginnings"),
    [
        ("iPhone 15 or Galaxy S25", ["Apple iPhone 15", "Samsung Galaxy S25"]),
        ("iPhone 15 vs Pixel 9", ["Apple iPhone 15", "Google Pixel 9"]),
        ("compare OnePlus 13 and iQOO 13", ["OnePlus 13 ", "iQOO 13 "]),
        ("OnePlus 13R vs Nothing Phone (3a)", ["OnePlus 13R", "Nothing Phone (3a)"]),
        ("which is better, Sony WH-1000XM5 or Bose QuietComfort?", ["Sony WH-1000XM5", "Bose QuietComfort"]),
        ("iphone 15 or 16", ["Apple iPhone 15", "Apple iPhone 16"]),
        ("airpods max or sony wh-1000xm5", ["Apple AirPods Max", "Sony WH-1000XM5"]),
        ("PS5 vs Xbox Series X", ["Sony PlayStation 5", "Microsoft Xbox Series X"]),
        ("case for iphone 15 or 16", ["Apple iPhone 15 Clear Case", "Apple iPhone 16 Silicone Case"]),
        ("difference between macbook air m4 and m3", ["Apple MacBook Air 13 M4", "Apple MacBook Air 13 M3"]),
    ],
)
async def test_each_named_product_is_found(
    question: str, beginnings: list[str], sample: Any, asking: Callable[..., CatalogAssistant]
) -> None:
    """The best match of each product comes first, in the order of the question."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    titles = [shown.title for shown in answer.products]
    assert len(titles) >= len(beginnings)
    assert all(title.startswith(begun) for title, begun in zip(titles, beginnings, strict=False))


async def test_other_criteria_hold_for_each_product(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """A budget limits each product; products without a match are named."""
    answer = await asking(sample).answer("Galaxy S24 or S25 under 90000", NOTHING_BEFORE)
    assert [shown.title[:18] for shown in answer.products] == ["Samsung Galaxy S25"]
    assert "Nothing fits “galaxy s24”." in answer.recommendations_summary
    empty = await asking(sample).answer("iPhone 15 or Galaxy S25 under 20000", NOTHING_BEFORE)
    assert empty.products == []
    assert "The obstacle is the price up to ₹20,000" in empty.recommendations_summary
    assert all("over the limit" in near.misses[0] for near in empty.near_misses)


async def test_sort_order_precedes_the_order_of_names(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """A requested sort order replaces the order of the question."""
    answer = await asking(sample).answer("cheapest of iphone 15 or iphone 16e", NOTHING_BEFORE)
    assert [shown.title[:16] for shown in answer.products] == ["Apple iPhone 16e", "Apple iPhone 15 "]


async def test_follow_up_applies_to_all_products(sample: Any, conversation: Callable[..., Any]) -> None:
    """A later limit applies to each product; another product replaces all."""
    answer = await conversation(sample, "iPhone 15 vs Pixel 9", "under 79950")
    assert [shown.title[:15] for shown in answer.products] == ["Apple iPhone 15"]
    other = await conversation(sample, "iPhone 15 vs Pixel 9", "what about oneplus 13r")
    assert [shown.title[:11] for shown in other.products] == ["OnePlus 13R"]


@pytest.mark.parametrize("question", ["iPhone 15 or Galaxy S25 under 90000", "samsung s24 vs pixel 9", "ps5 or xbox"])
def test_alternatives_survive_the_client(question: str, names: VocabularyIndex) -> None:
    """Criteria that a client sends back restore the same alternatives."""
    reading = parse_question(question, names)
    sent = to_product_criteria(reading.criteria, None, names)
    assert reading.alternatives
    assert restore_question(sent, names).alternatives == tuple(
        one.model_copy(update={"price_max": None, "currency": None}) for one in reading.alternatives
    )


async def test_either_kind_is_accepted(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """“Laptop or tablet” searches both categories."""
    answer = await asking(sample).answer("laptop or tablet under 17000", NOTHING_BEFORE)
    assert {shown.title.partition(" ")[0] for shown in answer.products} == {"Redmi", "Samsung", "JioBook"}
    assert answer.criteria is not None
    assert answer.criteria.category == "laptop or tablet"


def test_either_feature_is_accepted(names: VocabularyIndex) -> None:
    """“4G or 5G” requires neither of them alone."""
    features = parse_question("4g or 5g phone", names).criteria.features
    assert [feature.name for feature in features] == ["4G or 5G"]
    assert features[0].is_met_by(frozenset({"5g"}), {})


def test_deniable_feature_is_not_merged(names: VocabularyIndex) -> None:
    """A feature that an attribute denies must not be met by the wording of another feature."""
    features = parse_question("headphones with noise cancelling or bluetooth", names).criteria.features
    assert [feature.name for feature in features] == ["noise cancelling", "Bluetooth"]


async def test_either_kind_is_accepted_without_categories(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """Without categories the words of both kinds count."""
    catalog = make_catalog([product("Alpha laptop"), product("Beta tablet"), product("Gamma printer")])
    answer = await asking(catalog).answer("laptop or tablet under 500", NOTHING_BEFORE)
    assert {shown.title for shown in answer.products} == {"Alpha laptop", "Beta tablet"}
