"""Parsing of prices in catalogue files."""

from decimal import Decimal
from typing import Any

import pytest

from shopassist.catalog.importer.prices import parse_price
from shopassist.catalog.importer.values import InvalidRowError


@pytest.mark.parametrize(
    ("written", "amount", "currency"),
    [
        ("₹11,999", "11999.00", "INR"),
        ("Rs. 999", "999.00", "INR"),
        ("1,19,999/-", "119999.00", None),
        ("$9.99", "9.99", "USD"),
        ("US$ 20", "20.00", "USD"),
        ("1.299,00 €", "1299.00", "EUR"),
        ("1 299,50 EUR", "1299.50", "EUR"),
        ("1,299", "1299.00", None),
        ("12,5", "12.50", None),
        (9.99, "9.99", None),
        (7, "7.00", None),
    ],
)
def test_prices_are_parsed(written: Any, amount: str, currency: str | None) -> None:
    """Thousands separators, decimal signs and currencies are recognised."""
    assert parse_price(written) == (Decimal(amount), currency)


NO_PRICES = [
    *("NaN", "inf", "-5", "0", "0.001", "1e5", "free", "1.299", "1,2.3,4", "$5 €", "5 quids"),
    *(float("nan"), float("inf"), -5, 0, 10**12, 1e300, True, [5]),
]


@pytest.mark.parametrize("written", NO_PRICES)
def test_invalid_prices_are_rejected(written: Any) -> None:
    """Amounts that are not finite and positive, or are ambiguous, are rejected."""
    with pytest.raises(InvalidRowError):
        parse_price(written)


def test_shared_currency_sign() -> None:
    """The fallback decides if it is one of the currencies; a stated currency that is none of them is an error."""
    assert parse_price("$5", fallback="CAD") == (Decimal("5.00"), "CAD")
    assert parse_price("$5", fallback="INR") == (Decimal("5.00"), "USD")
    with pytest.raises(InvalidRowError, match="contradict"):
        parse_price("$5", "INR")


def test_minor_units() -> None:
    """Cents are converted to dollars; yen have no minor unit."""
    assert parse_price(4995, fallback="USD", in_minor_units=True) == (Decimal("49.95"), "USD")
    assert parse_price(4995, fallback="JPY", in_minor_units=True) == (Decimal("4995.00"), "JPY")
