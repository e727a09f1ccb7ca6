"""Parse prices and currencies of catalogue files: signs, names, ranges, remarks; unclear sums are refused."""

import html
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from shopassist.catalog.currencies import CODES_BY_SIGN, ISO_CODES, find_currency
from shopassist.catalog.importer.values import InvalidRowError, abbreviate

MAX_PRICE = Decimal("9999999999.99")
CENT = Decimal("0.01")

MOJIBAKE = {
    sign.encode().decode(encoding, "ignore"): sign
    for sign in CODES_BY_SIGN
    for encoding in ("latin-1", "cp1252")
    if len(sign) == 1 and not sign.isascii()
}
"""Signs in UTF-8 that were read in another encoding."""
SPACES = re.compile(r"[\s\u00a0\u2007\u2009\u202f\u200b\u200e\u200f]+")
TAX_INCLUDED = re.compile(
    r"[(\[]?\s*(?:\b(?:incl?|including|inclusive|inkl|inclus|ttc|mit mwst|com iva)\b[^)\]]*"
    r"|\b(?:vat|gst|tax|taxes|iva|mwst|tva)\.? (?:incl|inc|inkl|included|inclusive|incluido|incluído)\b\.?)[)\]]?\s*$"
)
LABEL = re.compile(
    r"(?:from|starting (?:at|from)|starts (?:at|from)|starting|as low as|ab|von|à partir de|a partir de|desde|dès|"
    r"m\.?r\.?p\.?|rrp|msrp|uvp|price|our price|sale price|preis|prix|precio|preço|now|only|nur|कीमत|मूल्य)"
    r"(?![^\W\d_])[:.\s]*"
)
PER_PIECE = re.compile(
    r"\s*(?:(?:/|\b(?:per|pro|par|por|je)\b)\s*"
    r"(?:each|ea|pcs?|pieces?|units?|items?|st(?:ü|ue)ck|stk|pi[eè]ce|unidade?|nos?)"
    r"|\b(?:each|ea|stück))\.?$"
)
OPEN_END = re.compile(r"\s*(?:onwards|and up|only|\+)$")
NO_MINOR_UNITS = re.compile(r"(?<=\d)\s*(?:[.,]\s?[-–—]{1,2}|/[-=])(?!\s*\d)")
RANGE = re.compile(r"\s*(?:[-–—~]|\bto\b|\bbis\b|\bà\b|\bhasta\b|\baté\b)\s*")
MULTIPLIERS = {"lakh": 100_000, "lac": 100_000, "crore": 10_000_000, "cr": 10_000_000, "लाख": 100_000}
MULTIPLIED = re.compile(r"(?<=\d)\s*(lakh|lac|crore|cr|लाख)s?\.?(?![^\W\d_])")
PRICE_PATTERN = re.compile(r"(?P<before>[^\d,+-]*?)\s*(?P<number>\d[\d.,'’ ]*?)\s*(?P<after>[^\d,+-]*?)")
LONE_DOT = re.compile(r"(?:^|[^\w])\.$|\s\.$")
SPACED_GROUPS = re.compile(r"\d{1,3}(?:[ '’]\d{2,3})*[ '’]\d{3}(?:[.,]\d{1,2})?")
PLAIN_AMOUNT = re.compile(r"\d+(?:\.\d{1,2}|\.\d{4,})?|0\.\d+")
DECIMAL_COMMA_AMOUNT = re.compile(r"\d+,\d{1,2}|\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,}")
COMMA_GROUPED_AMOUNT = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")
MINOR_MEMBERS, AMOUNT_MEMBERS = ("amount", "centAmount", "unit_amount"), ("amount", "value", "price", "sale_price")
MINOR_DIGITS = "currency_minor_unit"
CURRENCY_MEMBERS = ("currency", "currencyCode", "currency_code", "currency_id", "priceCurrency")


class Sum(NamedTuple):
    """An amount and the currencies that the mark beside it may mean."""

    amount: Decimal
    currencies: tuple[str, ...] = ()
    in_minor_units: bool = False


def parse_price(
    value: Any, stated: str | None = None, fallback: str | None = None, *, in_minor_units: bool = False
) -> tuple[Decimal, str | None] | None:
    """Return the amount in major units and its currency; None if the value is empty. Of a range the lowest amount.

    The currency is that `stated` in a column of its own, else that of the sign beside the amount, else `fallback`;
    `fallback` also decides between currencies that share a sign. Raise `InvalidRowError` for anything else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    found = _parse_sum(value)
    if found is None:
        return None
    amount, signed, is_minor = found
    if stated and signed and stated not in signed:
        raise InvalidRowError(f"price {abbreviate(value)} and its currency {stated} contradict each other")
    currency = stated or (fallback if fallback in signed or not signed else signed[0])
    if in_minor_units or is_minor:
        amount /= 10 ** find_currency(currency).minor_digits
    if not CENT / 2 <= amount <= MAX_PRICE:
        raise InvalidRowError(f"price {abbreviate(value)} is not above zero and below 10 thousand million")
    return amount.quantize(CENT, ROUND_HALF_UP), currency


def has_currency(value: Any) -> bool:
    """Return whether a price includes the sign or code of its currency."""
    try:
        found = _parse_sum(value) if isinstance(value, str | Mapping) else None
    except InvalidRowError:
        return False
    return found is not None and bool(found.currencies)


def parse_currency(value: Any) -> str | None:
    """Return the ISO 4217 code for a code, a sign or a name; None if it is empty. Raise `InvalidRowError`."""
    mark = _clean(str(value)) if value is not None else ""
    return _parse_currency_mark(mark)[0] if mark else None


def _parse_sum(value: Any) -> Sum | None:
    if isinstance(value, Mapping):
        return _parse_price_object(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidRowError(f"price {abbreviate(value)} is not a number")
    if not isinstance(value, str):
        number = Decimal(str(value))
        if not number.is_finite():
            raise InvalidRowError(f"price {abbreviate(value)} is not a finite number")
        return Sum(number)
    return _parse_written_sum(_clean(value), value)


def _parse_price_object(value: Mapping[str, Any]) -> Sum | None:
    """Return the sum of {"amount": 68700, "currency": "USD"}: a whole `amount` is in minor units, a text is not."""
    name = next((name for name in (*MINOR_MEMBERS, *AMOUNT_MEMBERS) if value.get(name) not in (None, "")), None)
    found = _parse_sum(value[name]) if name else None
    if found is None:
        return None
    code = next((parse_currency(value[key]) for key in CURRENCY_MEMBERS if value.get(key)), None)
    is_minor = MINOR_DIGITS in value or (name in MINOR_MEMBERS and isinstance(value[name], int))
    return Sum(found.amount, (code,) if code else found.currencies, is_minor)


def _clean(text: str) -> str:
    text = html.unescape(text)
    for damaged, sign in MOJIBAKE.items():
        text = text.replace(damaged, sign)
    return SPACES.sub(" ", text).strip().lower()


def _parse_written_sum(text: str, value: str) -> Sum:
    text = TAX_INCLUDED.sub("", text).strip()
    while label := LABEL.match(text):
        text = text[label.end() :]
    text = OPEN_END.sub("", PER_PIECE.sub("", text))
    text = NO_MINOR_UNITS.sub("", text).strip()
    parts = RANGE.split(text)
    if len(parts) != len(("low", "high")) or not all(re.search(r"\d", part) for part in parts):
        return _parse_one_sum(text, value)
    if len({bool(MULTIPLIED.search(part)) for part in parts}) > 1:
        raise InvalidRowError(f"price {abbreviate(value)} can be read in two ways")
    low, high = sorted((_parse_one_sum(part, value) for part in parts), key=lambda found: found.amount)
    return Sum(low.amount, _intersect(low.currencies, high.currencies, value))


def _parse_one_sum(text: str, value: str) -> Sum:
    factor = 1
    if multiplied := MULTIPLIED.search(text):
        factor = MULTIPLIERS[multiplied[1]]
        text = text[: multiplied.start()] + " " + text[multiplied.end() :]
    match = PRICE_PATTERN.fullmatch(text.strip())
    if not match or LONE_DOT.search(match["before"]):
        raise InvalidRowError(f"price {abbreviate(value)} is not a positive number with at most a currency beside it")
    before, after = (_parse_currency_mark(mark) if mark.strip(" .") else () for mark in match.group("before", "after"))
    currencies = _intersect(before, after, value)
    return Sum(_parse_amount(match["number"], value, currencies) * factor, currencies)


def _intersect(first: tuple[str, ...], second: tuple[str, ...], value: str) -> tuple[str, ...]:
    """Return the currencies that both marks may mean; a missing mark means any."""
    both = tuple(code for code in first if code in second) if first and second else first or second
    if first and second and not both:
        raise InvalidRowError(f"price {abbreviate(value)} names two currencies")
    return both


def _parse_currency_mark(mark: str) -> tuple[str, ...]:
    name = re.sub(r"[\s.]", "", mark.lower())
    known = CODES_BY_SIGN.get(name) or ((name.upper(),) if name.upper() in ISO_CODES else ())
    if not known:
        raise InvalidRowError(f"currency {abbreviate(mark)} is unknown: write its ISO code, as USD")
    return known


def _parse_amount(digits: str, value: str, currencies: tuple[str, ...]) -> Decimal:
    if re.search(r"[ '’]", digits):
        if not SPACED_GROUPS.fullmatch(digits):
            raise InvalidRowError(f"price {abbreviate(value)} can be read in two ways: write it as 1234.50")
        digits = re.sub(r"[ '’]", "", digits)
    has_three_digits = bool(currencies) and find_currency(currencies[0]).minor_digits == len("000")
    if PLAIN_AMOUNT.fullmatch(digits) or (has_three_digits and re.fullmatch(r"\d+\.\d{3}", digits)):
        return Decimal(digits)
    if COMMA_GROUPED_AMOUNT.fullmatch(digits):
        return Decimal(digits.replace(",", ""))
    if DECIMAL_COMMA_AMOUNT.fullmatch(digits):
        return Decimal(digits.replace(".", "").replace(",", "."))
    raise InvalidRowError(f"price {abbreviate(value)} can be read in two ways, or in none: write it as 1234.50")
