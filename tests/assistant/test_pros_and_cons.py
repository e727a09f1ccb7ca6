"""Pros and cons, recomputed from the data."""

import re
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from shopassist.assistant.wording import ProductComparison, describe_attribute, select_facts
from shopassist.catalog.attributes import COMPARED
from shopassist.catalog.currencies import format_money
from shopassist.catalog.models import Criteria, Product

ANYTHING = Criteria()


@pytest.mark.parametrize("category", ["smartphones", "laptops", "earbuds", "televisions", "speakers", "storage"])
def test_pros_and_cons_are_true(category: str, sample_products: list[Product]) -> None:
    """For every category of the sample, each pro and con follows from the data of all products."""
    fitting = [product for product in sample_products if product.category == category]
    shown = fitting[:3]
    for product in fitting:
        comparison = ProductComparison(fitting, [*shown, product], ANYTHING)
        pros, cons = comparison.list_pros(product), comparison.list_cons(product)
        assert 1 <= len(pros) <= 3
        assert 1 <= len(cons) <= 3
        for sentence in (*pros, *cons):
            assert _holds(sentence, product, fitting, [*shown, product]), (product.title, sentence)


def _holds(sentence: str, product: Product, fitting: Sequence[Product], shown: Sequence[Product]) -> bool:
    prices = [p.price for p in fitting if p.price is not None]
    assert product.price is not None
    if sentence.startswith("Lowest price"):
        return product.price == min(prices)
    if "below the average" in sentence:
        saving = (sum(prices, Decimal(0)) / len(prices) - product.price).quantize(Decimal(1))
        return sentence.startswith(format_money(saving, "INR")) and saving > 0
    if "more than the cheapest" in sentence:
        return sentence.startswith(f"{format_money(product.price - min(prices), 'INR')} more")
    if sentence.startswith("Price is indicative"):
        return f"{product.price_as_of:%B %Y}" in sentence
    if sentence.startswith("Meets every criterion") or "No drawback" in sentence or "No customer rating" in sentence:
        return True
    return _compares(sentence, product, fitting, shown)


def _compares(sentence: str, product: Product, fitting: Sequence[Product], shown: Sequence[Product]) -> bool:
    for row, comparison in COMPARED:
        value = product.attributes.get(row.key)
        if value is None:
            continue
        values = [p.attributes[row.key] for p in fitting if row.key in p.attributes]
        best = max(values) if row.direction > 0 else min(values)
        if sentence.startswith(f"{comparison.advantage} of the {len(values)} "):
            return bool(value == best) and values.count(value) == 1
        if sentence.startswith(f"{describe_attribute(row.key, value)}: none of the {len(values)} compared"):
            return bool(value == best)
        drawback = re.fullmatch(comparison.drawback.replace("{}", r"([\d.]+)") + " than (.+)", sentence)
        other = next((p for p in shown if drawback and p.title == drawback[2]), None)
        if drawback and other is not None and row.key in other.attributes:
            difference = (Decimal(str(other.attributes[row.key])) - Decimal(str(value))) * row.direction
            return Decimal(drawback[1]) == difference
    return False


def test_prices_of_other_currencies_are_not_compared(product: Callable[..., Any]) -> None:
    """A price in dollars is not compared with one in rupees."""
    rupees, dollars = product("A", price="5000"), product("B", price="60", currency="USD")
    comparison = ProductComparison([rupees, dollars], [rupees, dollars], ANYTHING)
    assert not any("price" in pro.lower() for pro in comparison.list_pros(dollars))
    assert not any("cheapest" in con for con in comparison.list_cons(rupees))


def test_old_price_is_a_con(product: Callable[..., Any]) -> None:
    """A price with a date is called indicative."""
    dated = product("A", price_as_of=date(2024, 9, 1))
    assert ProductComparison([dated], [dated], ANYTHING).list_cons(dated) == [
        "Price is indicative, as of September 2024"
    ]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ram_gb", 8, "8 GB RAM"),
        ("storage_gb", 512, "512 GB storage"),
        ("storage_gb", 2000, "2 TB storage"),
        ("battery_mah", 5000.0, "5000 mAh battery"),
        ("network", "5G", "5G"),
        ("weight_g", 1630, "1.63 kg"),
        ("noise_cancelling", True, "Noise cancelling"),
        ("noise_cancelling", False, ""),
        ("cable_length", 2.0, "Cable length: 2"),
        ("cable_length_m", 2.5, "Cable length: 2.5 m"),
        ("screen_size_inches", 5, "Screen size: 5 inches"),
        ("product_colour", "Black", "Product colour: Black"),
        ("warranty", "n/a", ""),
        ("anything", None, ""),
    ],
)
def test_attributes_are_described(key: str, value: object, words: str) -> None:
    """Known keys have a wording, others are made readable, absent values are left out."""
    assert describe_attribute(key, value) == words


def test_requested_facts_come_first(product: Callable[..., Any]) -> None:
    """The five most important facts are listed, first those that were asked for."""
    many = {"network": "5G", "ram_gb": 8, "storage_gb": 128, "battery_mah": 5000, "nfc": True, "screen_inches": 6.7,
            "display_type": "AMOLED", "package_weight": 300}  # fmt: skip
    facts = select_facts(product("A", attributes=many), Criteria(terms=("nfc",)))
    assert facts[0] == "Nfc"
    assert len(facts) == 5
    screen = product("A", attributes={"screen_inches": 6.7, "display_type": "AMOLED"})
    assert select_facts(screen, ANYTHING) == ["6.7-inch AMOLED display"]
