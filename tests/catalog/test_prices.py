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
        ("₹999 - ₹1,499", "999.00", "INR"),
        ("$20–$10", "10.00", "USD"),
        ("10 to 20 EUR", "10.00", "EUR"),
        ("From $5", "5.00", "USD"),
        ("ab 19,99 €", "19.99", "EUR"),
        ("À partir de 12 €", "12.00", "EUR"),
        ("MRP: Rs. 1,299.00/-", "1299.00", "INR"),
        ("₹1,299 (incl. of all taxes)", "1299.00", "INR"),
        ("19,99 € inkl. 19 % MwSt.", "19.99", "EUR"),
        ("£5 each", "5.00", "GBP"),
        ("5,00 € pro Stück", "5.00", "EUR"),
        ("AU$ 25", "25.00", "AUD"),
        ("$25 CAD", "25.00", "CAD"),
        ("U.S. $25", "25.00", "USD"),
        ("R$ 1.299,90", "1299.90", "BRL"),
        ("kr. 1 299,00", "1299.00", "SEK"),
        ("CHF 1'299.-", "1299.00", "CHF"),
        ("AED 250", "250.00", "AED"),
        ("12 dirhams", "12.00", "AED"),
        ("1.250 KWD", "1.25", "KWD"),
        ("2.5 lakhs", "250000.00", None),
        ("₹1 crore", "10000000.00", "INR"),
        ("&#8377;499", "499.00", "INR"),
        ("â‚¹499", "499.00", "INR"),
        ("Â£4.50", "4.50", "GBP"),
        ("â‚¬4,50", "4.50", "EUR"),
        ("25 US dollars", "25.00", "USD"),
        ({"amount": 68700, "currency": "USD"}, "687.00", "USD"),
        ({"amount": "687", "currencyCode": "USD"}, "687.00", "USD"),
        (9.99, "9.99", None),
        (7, "7.00", None),
    ],
)
def test_prices_are_parsed(written: Any, amount: str, currency: str | None) -> None:
    """Thousands separators, decimal signs and currencies are recognised."""
    assert parse_price(written) == (Decimal(amount), currency)


NO_PRICES = [
    *("Call for price", "N/A", "-", "$20 $15", "10 20", "1-1.5 lakh", "$10 + tax", "$10 excl. tax", "$5/kg", "20% off"),
    *("$.99", "5 XXX", {"amount": "?"}),
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
