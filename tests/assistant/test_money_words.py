"""Formatting of amounts."""

import pytest

from shopassist.catalog.currencies import format_money


@pytest.mark.parametrize(
    ("amount", "currency", "words"),
    [
        (149999, "INR", "₹1,49,999"),
        (999, "INR", "₹999"),
        (12345678.5, "INR", "₹1,23,45,678.50"),
        (1499, "USD", "$1,499.00"),
        (0.5, "USD", "$0.50"),
        (1234567, "EUR", "€1,234,567.00"),
        (100, "JPY", "JPY 100.00"),
        (-1000, "INR", "-₹1,000"),
    ],
)
def test_amounts_are_formatted(amount: float, currency: str, words: str) -> None:
    """Rupees are grouped by lakh and crore, other currencies by thousand."""
    assert format_money(amount, currency) == words
