"""Complete answers from small catalogues and from the sample."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from shopassist.assistant.assistant import VOCABULARY_LIFETIME_SECONDS, CatalogAssistant
from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.query.models import Answer, ConversationContext
from shopassist.settings import AssistantSettings

NOTHING_BEFORE = ConversationContext()
QUESTIONS = [
    "best 5G phone under ₹12,000 with 8GB RAM",
    "laptop between 40k and 60k with 16GB RAM and 512GB SSD",
    "tv 55 inch below Rs. 60,000",
    "earbuds under Rs 2k not boat",
    "phones above 20000 with 5000mAh battery",
    "samsung or oneplus phone under 30,000",
    "headphones except Sony",
    "phone under 1.5 lakh with 256GB storage",
    "noise cancelling earbuds",
    "waterproof bluetooth speaker under 5000",
    "20000mAh power bank under 2000",
    "smartwatch with gps",
    "4k tv under 30k",
    "iphone 15",
    "case for iphone 15",
    "nintendo switch",
    "cheapest laptop",
    "gaming mouse",
    "1tb ssd",
    "apple watch",
    "phone under 20k with 8 gb ram and 256 gb storage, not vivo",
]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_recommendations_meet_all_criteria(
    question: str, sample: Any, asking: Callable[..., CatalogAssistant]
) -> None:
    """There is a recommendation, and every one meets the criteria."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    known = VocabularyIndex(await sample.get_vocabulary(), "INR")
    criteria = parse_question(question, known).criteria
    by_title = {product.title: product for product in sample.products}
    assert answer.products
    assert [criteria.find_unmet(by_title[shown.title]) for shown in answer.products] == [[] for _ in answer.products]


async def test_example_question(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """The question of the front page gets three complete 5G phones with 8 GB up to ₹12,000."""
    answer = await asking(sample).answer("best 5G phone under ₹12,000 with 8GB RAM", NOTHING_BEFORE)
    assert len(answer.products) == 3
    for shown in answer.products:
        assert shown.price <= 12000
        assert shown.currency == "INR"
        assert shown.features[:2] == ["8 GB RAM", "5G"]
        assert 1 <= len(shown.pros) <= 3
        assert 1 <= len(shown.cons) <= 3
        assert "tag=shop-21" in shown.link or "flipkart" in shown.link
    assert len({shown.title.partition(" (")[0] for shown in answer.products}) == 3
    assert answer.chargeable
    assert "8 GB RAM or more, 5G, up to ₹12,000" in answer.recommendations_summary
    assert answer.products[0].title in answer.recommendations_summary


async def test_answers_are_deterministic(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """The same question gets the same answer."""
    first = await asking(sample).answer(QUESTIONS[4], NOTHING_BEFORE)
    assert await asking(sample).answer(QUESTIONS[4], NOTHING_BEFORE) == first


async def test_obstacle_is_named_if_nothing_fits(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """Nothing is recommended; the summary names the obstacle, the near misses their unmet criteria."""
    catalog = make_catalog(
        [
            product("Alpha", category="smartphones", price="12999", attributes={"ram_gb": 8}),
            product("Beta", category="smartphones", price="9999", attributes={"ram_gb": 6}),
            product("Gamma", category="laptops", price="9999", attributes={"ram_gb": 8}),
        ]
    )
    answer = await asking(catalog).answer("phone with 8GB RAM under ₹12,000", NOTHING_BEFORE)
    assert answer.products == []
    assert not answer.chargeable
    assert "the price up to ₹12,000; 8 GB RAM or more" in answer.recommendations_summary
    assert {near.title: near.misses for near in answer.near_misses} == {
        "Alpha": ["₹12,999, which is ₹999 over the limit"],
        "Beta": ["6 GB RAM instead of 8 GB RAM or more"],
    }


async def test_unknown_rating_meets_no_limit(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """Without known ratings a limit on them excludes all products, and the answer says so."""
    answer = await asking(sample).answer("laptop rated above 4 stars", NOTHING_BEFORE)
    assert answer.products == []
    assert "the rating is not known for the 25 otherwise fitting products" in answer.recommendations_summary
    assert [near.misses for near in answer.near_misses] == [["rating is not known"]] * 3


async def test_preference_for_ratings_is_no_limit(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """“Highly rated” only sorts; the answer says if ratings are missing."""
    answer = await asking(sample).answer("highly rated laptops", NOTHING_BEFORE)
    assert len(answer.products) == 3
    assert "no ratings" in answer.recommendations_summary


async def test_currencies_are_not_compared(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """A limit in dollars finds no prices in rupees, and the answer says why."""
    answer = await asking(sample).answer("phone under $60000", NOTHING_BEFORE)
    assert answer.products == []
    assert "rupees (₹)" in answer.recommendations_summary
    assert "US dollars ($)" in answer.recommendations_summary
    assert all(near.currency == "INR" and "INR" in near.misses[0] for near in answer.near_misses)


async def test_price_without_a_mark_is_in_the_only_currency(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """In a catalogue in dollars “under 500” means dollars."""
    catalog = make_catalog([product("Alpha", category="laptops", price="450", currency="USD")])
    answer = await asking(catalog).answer("laptop under 500", NOTHING_BEFORE)
    assert [shown.title for shown in answer.products] == ["Alpha"]


@pytest.mark.parametrize(
    "question",
    ["asdfgh qwerty", "what's the weather in Delhi", "write me a poem", "🙂🙂🙂", "who is the prime minister"],
)
async def test_off_topic_text_gets_help(question: str, sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """Nothing is recommended, and the summary explains what can be asked."""
    answer = await asking(sample).answer(question, NOTHING_BEFORE)
    assert answer.products == answer.near_misses == []
    assert "Ask me" in answer.recommendations_summary


async def test_devices_and_accessories_are_not_confused(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """A question for a case finds no phone, and one for a phone no case, with and without categories."""
    catalog = make_catalog(
        [
            product("Apple iPhone 11 smartphone", brand="Apple", attributes={"ram_gb": 4, "screen_inches": 6.1}),
            product("Spigen Case for iPhone 11 smartphone", brand="Spigen"),
        ]
    )
    for question, title in [
        ("iPhone 11", "Apple iPhone 11 smartphone"),
        ("iPhone 11 case", "Spigen Case for iPhone 11"),
    ]:
        answer = await asking(catalog).answer(question, NOTHING_BEFORE)
        assert [shown.title.startswith(title) for shown in answer.products] == [True]


async def test_unknown_brand_is_not_replaced(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """An unknown name stays a requirement."""
    for question in ("OtterBox case for iphone 15", "otterbox case", "kodak camera"):
        answer = await asking(sample).answer(question, NOTHING_BEFORE)
        assert answer.products == []


async def test_descriptive_words_are_dropped_in_keyword_search(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """Without numbers, known descriptive words only rank products, and the summary says so."""
    catalog = make_catalog(
        [product("Desk speaker", category="speakers"), product("Surround receiver", category="receivers"),
         product("Sound bar stereo speaker", category="speakers")]
    )  # fmt: skip
    answer = await asking(catalog).answer("surround sound speakers", NOTHING_BEFORE)
    assert [shown.title for shown in answer.products] == ["Sound bar stereo speaker", "Desk speaker"]
    assert "None is described as “surround sound”" in answer.recommendations_summary
    strict = await asking(catalog).answer("surround sound speakers under 5000", NOTHING_BEFORE)
    assert strict.products == []


async def test_denied_feature_is_not_met(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """A description “without noise cancelling” does not state the feature."""
    answer = await asking(sample).answer("apple noise cancelling earbuds", NOTHING_BEFORE)
    assert answer.products
    assert "Apple AirPods 4" not in {shown.title for shown in answer.products}


async def test_products_without_a_price_are_not_recommended(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """A product without a price is neither a recommendation nor a near miss."""
    catalog = make_catalog([product("Alpha", category="laptops", price=None)])
    answer = await asking(catalog).answer("laptop", NOTHING_BEFORE)
    assert answer.products == answer.near_misses == []


async def test_variants_of_one_model_rank_last(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """Other phones come before further variants of one phone."""
    variants = [product(f"Alpha ({n}GB)", category="smartphones", price=f"{n}000") for n in (4, 6, 8)]
    catalog = make_catalog([*variants, product("Beta", category="smartphones", price="90000")])
    answer = await asking(catalog).answer("cheapest phone", NOTHING_BEFORE)
    assert [shown.title for shown in answer.products] == ["Alpha (4GB)", "Beta", "Alpha (6GB)"]


async def test_sort_order_is_kept(sample: Any, asking: Callable[..., CatalogAssistant]) -> None:
    """The cheapest or the most expensive product comes first on request."""
    prices = [float(product.price) for product in sample.products if product.category == "laptops"]
    cheapest = await asking(sample).answer("cheapest laptop", NOTHING_BEFORE)
    dearest = await asking(sample).answer("most expensive laptop", NOTHING_BEFORE)
    assert cheapest.products[0].price == min(prices)
    assert dearest.products[0].price == max(prices)


async def test_few_ratings_count_little(
    make_catalog: Callable[..., Any], product: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """Five stars by one buyer rank below 4.7 by a thousand."""
    catalog = make_catalog(
        [
            product("Alpha", category="laptops", rating=Decimal(5), rating_count=1),
            product("Beta", category="laptops", rating=Decimal("4.7"), rating_count=1000),
        ]
    )
    answer = await asking(catalog).answer("top rated laptop", NOTHING_BEFORE)
    assert [shown.title for shown in answer.products] == ["Beta", "Alpha"]
    assert answer.products[0].rating == 4.7


async def test_vocabulary_is_cached(sample: Any) -> None:
    """The vocabulary is read once a minute."""
    now = [0.0]
    assistant = CatalogAssistant(sample, AssistantSettings(), monotonic=lambda: now[0])
    for second in (0, 1, VOCABULARY_LIFETIME_SECONDS - 1, VOCABULARY_LIFETIME_SECONDS, VOCABULARY_LIFETIME_SECONDS + 1):
        now[0] = float(second)
        await assistant.answer("phone", NOTHING_BEFORE)
    assert sample.vocabularies == 2


async def test_empty_catalogue_gives_empty_answers(
    make_catalog: Callable[..., Any], asking: Callable[..., CatalogAssistant]
) -> None:
    """Before an import every question gets an empty answer."""
    answer = await asking(make_catalog([])).answer("best 5G phone under ₹12,000", NOTHING_BEFORE)
    assert answer.products == answer.near_misses == []
    assert isinstance(answer, Answer)
