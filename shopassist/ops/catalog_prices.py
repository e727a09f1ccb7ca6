"""Prices of foreign catalogues: read strictly, refused with a reason when they cannot be understood."""

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from shopassist.ops.catalog_values import Refused, shown

SIGNS = {
    "₹": ("INR",),
    "rs": ("INR", "PKR", "LKR", "NPR", "MUR"),
    "$": ("USD", "CAD", "AUD", "NZD", "SGD", "HKD", "MXN"),
    "us$": ("USD",),
    "€": ("EUR",),
    "£": ("GBP",),
    "¥": ("JPY", "CNY"),
    "₩": ("KRW",),
    "zł": ("PLN",),
    "₺": ("TRY",),
    "₽": ("RUB",),
    "₫": ("VND",),
    "฿": ("THB",),
}
CODE = re.compile(r"[A-Za-z]{3}")
WITHOUT_MINOR_UNIT = frozenset({"JPY", "KRW", "VND", "CLP", "ISK", "XAF", "XOF", "PYG", "UGX"})
HIGHEST_PRICE = Decimal("9999999999.99")
CENT = Decimal("0.01")
PRICE = re.compile(r"(?P<before>[^\d\s.,+-]+\.?)?\s*(?P<number>\d[\d.,'\s]*?)\s*(?P<after>[^\d\s.,/+-]+\.?)?\s*(?:/-)?")
PLAIN = re.compile(r"\d+(?:\.\d{1,2}|\.\d{4,})?|0\.\d+")
DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}|\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,}")
GROUPED_BY_COMMA = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")


def price_of(
    value: Any, stated: str | None = None, fallback: str | None = None, *, minor: bool = False
) -> tuple[Decimal, str | None] | None:
    """The amount in major units with its currency; None when there is no price.

    The currency is the one `stated` in its own column, else that of the sign beside the amount, else `fallback`, which
    also decides between currencies that share a sign. Raises `Refused`.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    amount, signed = _read(value)
    if stated and signed and stated not in signed:
        raise Refused(f"price {shown(value)} and its currency {stated} contradict each other")
    currency = stated or (fallback if fallback in signed or not signed else signed[0])
    if minor and currency not in WITHOUT_MINOR_UNIT:
        amount /= 100
    if not CENT / 2 <= amount <= HIGHEST_PRICE:
        raise Refused(f"price {shown(value)} is not above zero and below 10 thousand million")
    return amount.quantize(CENT, ROUND_HALF_UP), currency


def names_currency(value: Any) -> bool:
    """Whether the price carries the sign of its currency."""
    try:
        return isinstance(value, str) and bool(_read(value)[1])
    except Refused:
        return False


def currency_of(value: Any) -> str | None:
    """The ISO 4217 code for a code or a sign, None when it is empty. Raises `Refused`."""
    mark = str(value).strip() if value is not None else ""
    return _currencies(mark)[0] if mark else None


def _read(value: Any) -> tuple[Decimal, tuple[str, ...]]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused(f"price {shown(value)} is not a number")
    if not isinstance(value, str):
        number = Decimal(str(value))
        if not number.is_finite():
            raise Refused(f"price {shown(value)} is not a finite number")
        return number, ()
    match = PRICE.fullmatch(value.strip())
    if not match:
        raise Refused(f"price {shown(value)} is not a positive number with at most a currency beside it")
    marks = {_currencies(mark) for mark in match.group("before", "after") if mark}
    if len(marks) > 1:
        raise Refused(f"price {shown(value)} names two currencies")
    return _number(re.sub(r"[\s']", "", match["number"]), value), marks.pop() if marks else ()


def _currencies(mark: str) -> tuple[str, ...]:
    known = SIGNS.get(mark.lower().rstrip("."))
    if not known and not CODE.fullmatch(mark):
        raise Refused(f"currency {shown(mark)} is unknown: write its ISO code, as USD")
    return known or (mark.upper(),)


def _number(digits: str, value: str) -> Decimal:
    if PLAIN.fullmatch(digits):
        return Decimal(digits)
    if GROUPED_BY_COMMA.fullmatch(digits):
        return Decimal(digits.replace(",", ""))
    if DECIMAL_COMMA.fullmatch(digits):
        return Decimal(digits.replace(".", "").replace(",", "."))
    raise Refused(f"price {shown(value)} can be read in two ways, or in none: write it as 1234.50")
