"""Informal questions: Hindi in Latin letters, abbreviations, features at the end."""

import pytest

from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.catalog.models import SortOrder


@pytest.mark.parametrize(
    ("question", "low", "high"),
    [
        ("20000 ke andar phone", None, 20000),
        ("20 hazaar tak ka phone", None, 20000),
        ("phone 15000₹ se kam", None, 15000),
        ("20k se zyada wala phone", 20000, None),
        ("do hazaar tak phone", None, 2000),
        ("1.5 lakh se kam phone", None, 150000),
        ("20000 se 30000 ke beech phone", 20000, 30000),
        ("phone btw 10k to 15k", 10000, 15000),
        ("phone less then 2000", None, 2000),
        ("phone lessthan 2000", None, 2000),
        ("phone under eighteen thousand", None, 18000),
        ("phone under 1 lakh 20 thousand", None, 120000),
        ("phone under ten thousand five hundred", None, 10500),
        ("phone under 12000 or 15000", None, 15000),
    ],
)
def test_informal_prices_are_read(question: str, low: int | None, high: int | None, names: VocabularyIndex) -> None:
    """The comparison may follow the amount; no part of it becomes a term."""
    criteria = parse_question(question, names).criteria
    assert (criteria.price_min, criteria.price_max, criteria.terms) == (low, high, ())
    assert criteria.categories == ("smartphones",)


def test_cheapest_in_hindi(names: VocabularyIndex) -> None:
    """“Sabse sasta” sorts by price."""
    criteria = parse_question("sabse sasta 5G phone", names).criteria
    assert (criteria.sort_order, criteria.terms) == (SortOrder.CHEAPEST, ())


@pytest.mark.parametrize(
    ("question", "preferences"),
    [
        ("accha camera wala phone", ("camera",)),
        ("accha camera aur battery wala phone", ("camera", "battery")),
        ("good camera and battery phone", ("camera", "battery")),
    ],
)
def test_part_is_not_the_product(question: str, preferences: tuple[str, ...], names: VocabularyIndex) -> None:
    """The last noun is the product; nouns before it are preferences."""
    criteria = parse_question(question, names).criteria
    assert (criteria.categories, criteria.preferences, criteria.terms) == (("smartphones",), preferences, ())


@pytest.mark.parametrize(
    "question", ["laptop with 16gb ram and an SSD", "laptop with an SSD", "laptop under 50000 with wifi and SSD"]
)
def test_feature_after_and_is_kept(question: str, names: VocabularyIndex) -> None:
    """An SSD of a laptop is a feature, although an SSD is also a product."""
    criteria = parse_question(question, names).criteria
    assert criteria.categories == ("laptops",)
    assert criteria.features[-1].name == "SSD"


def test_abbreviations_are_read(names: VocabularyIndex) -> None:
    """“w/” and “w/o” are not terms."""
    criteria = parse_question("phone w/ 5000mah+ battery w/o headphone jack", names).criteria
    assert criteria.terms == ()
    assert [feature.name for feature in criteria.excluded_features] == ["headphone jack"]
    assert [bound.name for bound in criteria.bounds] == ["battery_mah"]
