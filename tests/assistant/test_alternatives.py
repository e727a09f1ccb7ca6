"""Several things in one question: either will do, each is looked up."""

from collections.abc import Callable
from typing import Any

import pytest

from shopassist.assistant.answering.wording import to_product_criteria
from shopassist.assistant.assistant import CatalogAssistant
from shopassist.assistant.follow_ups import restore_question
from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.vocabulary import VocabularyIndex
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
    """The best of each comes first, in the order in which they were named."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    titles = [shown.title for shown in answer.products]
    assert len(titles) >= len(beginnings)
    assert all(title.startswith(begun) for title, begun in zip(titles, beginnings, strict=False))


async def test_what_is_asked_besides_holds_for_each(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """A budget is nobody's alone; what nothing fits is told."""
    answer = await asking(sample).answer("Galaxy S24 or S25 under 90000", NOTHING_BEFORE)
    assert [shown.title[:18] for shown in answer.products] == ["Samsung Galaxy S25"]
    assert "Nothing fits “galaxy s24”." in answer.recommendations_summary
    empty = await asking(sample).answer("iPhone 15 or Galaxy S25 under 20000", NOTHING_BEFORE)
    assert empty.products == []
    assert "The obstacle is the price up to ₹20,000" in empty.recommendations_summary
    assert all("over the limit" in near.misses[0] for near in empty.near_misses)


async def test_the_cheapest_of_two_comes_first(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """An order that was asked for goes before the order of naming."""
    answer = await asking(sample).answer("cheapest of iphone 15 or iphone 16e", NOTHING_BEFORE)
    assert [shown.title[:16] for shown in answer.products] == ["Apple iPhone 16e", "Apple iPhone 15 "]


async def test_a_follow_up_speaks_of_all_of_them(sample: Any, conversation: Callable[..., Any]) -> None:
    """A limit that comes later is a limit for each, another product takes their place."""
    answer = await conversation(sample, "iPhone 15 vs Pixel 9", "under 79950")
    assert [shown.title[:15] for shown in answer.products] == ["Apple iPhone 15"]
    other = await conversation(sample, "iPhone 15 vs Pixel 9", "what about oneplus 13r")
    assert [shown.title[:11] for shown in other.products] == ["OnePlus 13R"]


@pytest.mark.parametrize("question", ["iPhone 15 or Galaxy S25 under 90000", "samsung s24 vs pixel 9", "ps5 or xbox"])
def test_alternatives_survive_the_client(question: str, names: VocabularyIndex) -> None:
    """What a client sends back names the same alternatives."""
    reading = parse_question(question, names)
    sent = to_product_criteria(reading.criteria, None, names)
    assert reading.alternatives
    assert restore_question(sent, names).alternatives == tuple(
        one.model_copy(update={"price_max": None, "currency": None}) for one in reading.alternatives
    )


async def test_either_kind_will_do(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """“Laptop or tablet” is filed under both."""
    answer = await asking(sample).answer("laptop or tablet under 17000", NOTHING_BEFORE)
    assert {shown.title.partition(" ")[0] for shown in answer.products} == {"Redmi", "Samsung", "JioBook"}
    assert answer.criteria is not None
    assert answer.criteria.category == "laptop or tablet"


def test_either_feature_will_do(names: VocabularyIndex) -> None:
    """“4G or 5G” asks for neither of them alone."""
    features = parse_question("4g or 5g phone", names).criteria.features
    assert [feature.name for feature in features] == ["4G or 5G"]
    assert features[0].is_met_by(frozenset({"5g"}), {})


def test_a_feature_that_may_be_denied_is_not_merged(names: VocabularyIndex) -> None:
    """What an attribute says is not there must not be let in by another feature's wording."""
    features = parse_question("headphones with noise cancelling or bluetooth", names).criteria.features
    assert [feature.name for feature in features] == ["noise cancelling", "Bluetooth"]


async def test_either_kind_will_do_without_categories(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """Where the catalogue files nothing, the texts of both kinds count."""
    catalog = make_catalog([product("Alpha laptop"), product("Beta tablet"), product("Gamma printer")])
    answer = await asking(catalog).answer("laptop or tablet under 500", NOTHING_BEFORE)
    assert {shown.title for shown in answer.products} == {"Alpha laptop", "Beta tablet"}
