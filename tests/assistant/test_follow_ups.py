"""Follow-up questions."""

from collections.abc import Callable
from typing import Any

import pytest

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.assistant.follow_ups import restore_question
from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.assistant.wording import to_product_criteria
from shopassist.query.models import ConversationContext, ConversationMessage, PriceRange, ProductCriteria

FIRST = "5G phone under ₹30,000 with 8GB RAM"


async def test_cheaper_means_below_the_shown_prices(sample: Any, conversation: Callable[..., Any]) -> None:
    """“Cheaper ones” cost less than the cheapest shown product and meet every other criterion."""
    before = await conversation(sample, FIRST)
    after = await conversation(sample, FIRST, "cheaper ones")
    assert after.products
    assert max(p.price for p in after.products) < min(p.price for p in before.products)
    assert all("5G" in p.features and "8 GB RAM" in p.features for p in after.products)


async def test_cheaper_can_be_repeated(
    make_catalog: Callable[..., Any], product: Callable[..., Any], conversation: Callable[..., Any]
) -> None:
    """Each “cheaper” refers to the previous answer."""
    prices = range(1000, 10000, 1000)
    catalog = make_catalog(product(f"Phone {price}", category="smartphones", price=str(price)) for price in prices)
    asked = ("most expensive phone", "cheaper ones", "even cheaper")
    answers = [await conversation(catalog, *asked[:count]) for count in (1, 2, 3)]
    assert [[shown.price for shown in answer.products] for answer in answers] == [
        [9000, 8000, 7000],
        [6000, 5000, 4000],
        [3000, 2000, 1000],
    ]


async def test_another_brand_replaces_only_the_brand(sample: Any, conversation: Callable[..., Any]) -> None:
    """“What about samsung instead” replaces only the brand."""
    answer = await conversation(sample, "oneplus 5G phone under ₹40,000", "what about samsung instead")
    assert answer.products
    assert all("Samsung" in p.title and p.price <= 40000 and "5G" in p.features for p in answer.products)
    assert answer.criteria.brand == "Samsung"


@pytest.mark.parametrize(
    ("follow_up", "holds"),
    [
        ("with 12GB RAM", lambda p: any(f in p.features for f in ("12 GB RAM", "16 GB RAM"))),
        ("under 25000", lambda p: p.price <= 25000),
        ("not oneplus or vivo", lambda p: "oneplus" not in p.title.lower() and "vivo" not in p.title.lower()),
        ("samsung", lambda p: p.title.startswith("Samsung")),
        ("and with 256GB storage", lambda p: any(f in p.features for f in ("256 GB storage", "512 GB storage"))),
    ],
)
async def test_later_criteria_are_added(
    follow_up: str, holds: Callable[[Any], bool], sample: Any, conversation: Callable[..., Any]
) -> None:
    """A later criterion is added to the earlier ones."""
    answer = await conversation(sample, "5G phone under 50000", follow_up)
    assert answer.products
    assert all(holds(p) and p.price <= 50000 and "5G" in p.features for p in answer.products)


async def test_bigger_battery_is_a_limit(
    make_catalog: Callable[..., Any], product: Callable[..., Any], conversation: Callable[..., Any]
) -> None:
    """“Bigger battery” limits the battery; it does not search for batteries."""
    catalog = make_catalog(
        product(f"Phone {n}", category="smartphones", price=f"{n}", attributes={"battery_mah": n})
        for n in (4000, 4500, 5000, 6000)
    )
    answer = await conversation(catalog, "cheapest phone", "bigger battery")
    assert [p.title for p in answer.products] == ["Phone 6000"]


async def test_another_kind_keeps_only_the_budget(sample: Any, conversation: Callable[..., Any]) -> None:
    """“And in laptops?” drops the criteria for phones and keeps the price."""
    answer = await conversation(sample, "5G phone under ₹40,000 with 5000mAh battery", "and in laptops?")
    assert answer.products
    assert answer.criteria.category == "laptop"
    assert all(p.price <= 40000 for p in answer.products)


async def test_complete_question_starts_anew(sample: Any, conversation: Callable[..., Any]) -> None:
    """A question with its own kind of product ignores the earlier ones."""
    fresh = await conversation(sample, "earbuds under 3000")
    assert await conversation(sample, FIRST, "not oneplus", "earbuds under 3000") == fresh


async def test_unreadable_question_is_skipped(sample: Any, conversation: Callable[..., Any]) -> None:
    """A question that was not understood does not change the conversation."""
    direct = await conversation(sample, FIRST, "samsung")
    assert await conversation(sample, FIRST, "asdf qwer", "what's the weather?", "samsung") == direct
    assert (await conversation(sample, FIRST, "asdf qwer")).products == []


async def test_number_replaces_the_model_number(sample: Any, conversation: Callable[..., Any]) -> None:
    """“What about the 16” after an iPhone 15 is an iPhone 16."""
    answer = await conversation(sample, "iphone 15", "what about the 16")
    assert answer.products
    assert all("iPhone 16" in p.title for p in answer.products)


async def test_returned_criteria_replace_the_messages(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """A follow-up is based on `last_product_criteria`, not on the messages."""
    context = ConversationContext(
        messages=[ConversationMessage(text="laptop under 100", sender="user")],
        last_product_criteria=ProductCriteria(
            category="smartphones", price_range=PriceRange(max=20000), features=["8 GB RAM or more", "5G"]
        ),
    )
    answer = await asking(sample).answer("samsung", context)
    assert answer.products
    assert all("Samsung" in p.title and p.price <= 20000 and "8 GB RAM" in p.features for p in answer.products)


@pytest.mark.parametrize(
    "question",
    [
        "best 5G phone under ₹12,000 with 8GB RAM",
        "samsung or oneplus phone between 20k and 40k with 5000mAh battery, 120Hz",
        "tv 55 inch below Rs. 50,000",
        "earbuds under Rs 2k not boat",
        "phone without headphone jack under 200 grams",
        "phone rated above 4 stars with 150+ reviews under $100",
        "iPhone 11 Pro Max case rated 4.5 stars or higher",
        "waterproof 20w speaker on amazon",
        "cheapest gaming laptop with rtx 3050",
        "phone with good camera and fast charging",
        "Samsung Note 9 screen protectors under $20",
        "1tb ssd",
    ],
)
def test_criteria_survive_the_client(question: str, names: VocabularyIndex) -> None:
    """Criteria that a client sends back restore the criteria of the question."""
    reading = parse_question(question, names)
    sent = to_product_criteria(reading.criteria, reading.noun.text if reading.noun else None, names)
    back = restore_question(ProductCriteria.model_validate_json(sent.model_dump_json()), names).criteria
    assert _unordered(back) == _unordered(reading.criteria)


def _unordered(criteria: Any) -> dict[str, Any]:
    facts = criteria.model_dump(exclude={"category_words"})
    return {name: sorted(map(str, value)) if isinstance(value, tuple) else value for name, value in facts.items()}
