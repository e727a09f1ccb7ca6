"""Parse values of catalogue files: text, numbers, dates, links, prices; InvalidRowError if unusable."""

import math
import re
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote_plus, urlsplit

from shopassist.catalog.currencies import CODES_BY_SIGN, find_currency
from shopassist.text import validate_text

NUMBER_PATTERN = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
MARKUP = re.compile(r"<[a-zA-Z/!]|&[#\w]+;")
YES, NO = frozenset({"true", "yes", "y"}), frozenset({"false", "no", "n"})
MAX_EXACT_INTEGER = 2**53
MAX_SEARCH_LENGTH = 150


class InvalidRowError(ValueError):
    """A row cannot be used; the message is shown to the owner of the file."""


class _VisibleTextParser(HTMLParser):
    """Collects the visible text of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._hidden = tag in {"script", "style"}
        self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._hidden = False
        self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def parse_text(name: str, value: Any, max_length: int) -> str | None:
    """Return a value as one line of text without markup; None if it is empty.

    Raise `InvalidRowError` for more than `max_length` characters and for characters that cannot be stored.
    """
    if value is None:
        return None
    content = value if isinstance(value, str) else str(value)
    if MARKUP.search(content):
        visible = _VisibleTextParser()
        visible.feed(content)
        visible.close()
        content = "".join(visible.parts)
    content = " ".join(content.split())
    try:
        validate_text(content)
    except ValueError as error:
        raise InvalidRowError(f"{name} {error}") from None
    if len(content) > max_length:
        raise InvalidRowError(f"{name} is longer than {max_length:,} characters")
    return content or None


def parse_number(name: str, value: Any, minimum: int, maximum: int) -> Decimal | None:
    """Return a number within both limits; None if the value is empty. Raise `InvalidRowError` for anything else."""
    if value is None or value == "":
        return None
    try:
        number = Decimal("nan") if isinstance(value, bool) else Decimal(str(value).replace(",", "").strip())
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or not minimum <= number <= maximum:
        raise InvalidRowError(f"{name} {abbreviate(value)} is not a number from {minimum} to {maximum}")
    return number


def parse_date(value: Any) -> date | None:
    """Return the date of an ISO date or instant; None if the value is empty. Raise `InvalidRowError`."""
    if value is None or value == "":
        return None
    try:
        return datetime.fromisoformat(str(value).strip()).date()
    except ValueError:
        raise InvalidRowError(f"date {abbreviate(value)} is not written as YYYY-MM-DD") from None


def parse_link(value: Any, max_length: int) -> str | None:
    """Return an http(s) address; None if the value is empty. Raise `InvalidRowError` for anything else."""
    address = str(value).strip() if value is not None else ""
    if not address:
        return None
    try:
        parts = urlsplit(validate_text(address))
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and "//" in address[:8]
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\\<>\"]", address):
        raise InvalidRowError(f"link {abbreviate(value)} is no http(s) address")
    if len(address) > max_length:
        raise InvalidRowError(f"link is longer than {max_length:,} characters")
    return address


def build_store_link(template: str | None, brand: str | None, title: str, currency: str | None) -> str:
    """Return the address of a search for a product: `template` with `{query}`, or Amazon's shop for the currency."""
    if template is None:
        template = f"https://www.amazon.{find_currency(currency).store}/s?k={{query}}"
    named = not brand or title.lower().startswith(brand.lower())
    query = title if named else f"{brand} {title}"
    return template.replace("{query}", quote_plus(query[:MAX_SEARCH_LENGTH]))


def parse_attribute_value(name: str, value: Any, max_length: int) -> bool | float | str | None:
    """Return an attribute as a JSON value, None if it is empty. Texts of numbers, "yes" and "no" are converted.

    Raise `InvalidRowError` for NaN, infinity and text that cannot be stored.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise InvalidRowError(f"{name} is not a finite number")
        whole = isinstance(value, int) or (value.is_integer() and abs(value) < MAX_EXACT_INTEGER)
        return int(value) if whole else value
    content = parse_text(name, value, max_length)
    if content is None:
        return None
    if NUMBER_PATTERN.fullmatch(content):
        return parse_attribute_value(name, float(content), max_length)
    lowered = content.lower()
    return lowered in YES if lowered in YES | NO else content


def abbreviate(value: Any) -> str:
    """Return a value in 60 ASCII characters, for a message."""
    return ascii(value)[:60]


CURRENCY_CODE_PATTERN = re.compile(r"[A-Za-z]{3}")

MAX_PRICE = Decimal("9999999999.99")
CENT = Decimal("0.01")
PRICE_PATTERN = re.compile(
    r"(?P<before>[^\d\s.,+-]+\.?)?\s*(?P<number>\d[\d.,'\s]*?)\s*(?P<after>[^\d\s.,/+-]+\.?)?\s*(?:/-)?"
)
PLAIN_AMOUNT = re.compile(r"\d+(?:\.\d{1,2}|\.\d{4,})?|0\.\d+")
DECIMAL_COMMA_AMOUNT = re.compile(r"\d+,\d{1,2}|\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,}")
COMMA_GROUPED_AMOUNT = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")


def parse_price(
    value: Any, stated: str | None = None, fallback: str | None = None, *, in_minor_units: bool = False
) -> tuple[Decimal, str | None] | None:
    """Return the amount in major units and its currency; None if the value is empty.

    The currency is that `stated` in a column of its own, else that of the sign beside the amount, else `fallback`;
    `fallback` also decides between currencies that share a sign. Raise `InvalidRowError` for anything else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    amount, signed = _parse_amount_and_currencies(value)
    if stated and signed and stated not in signed:
        raise InvalidRowError(f"price {abbreviate(value)} and its currency {stated} contradict each other")
    currency = stated or (fallback if fallback in signed or not signed else signed[0])
    if in_minor_units and find_currency(currency).has_minor_unit:
        amount /= 100
    if not CENT / 2 <= amount <= MAX_PRICE:
        raise InvalidRowError(f"price {abbreviate(value)} is not above zero and below 10 thousand million")
    return amount.quantize(CENT, ROUND_HALF_UP), currency


def has_currency(value: Any) -> bool:
    """Return whether a price includes the sign or code of its currency."""
    try:
        return isinstance(value, str) and bool(_parse_amount_and_currencies(value)[1])
    except InvalidRowError:
        return False


def parse_currency(value: Any) -> str | None:
    """Return the ISO 4217 code for a code or a sign; None if it is empty. Raise `InvalidRowError`."""
    mark = str(value).strip() if value is not None else ""
    return _parse_currency_mark(mark)[0] if mark else None


def _parse_amount_and_currencies(value: Any) -> tuple[Decimal, tuple[str, ...]]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidRowError(f"price {abbreviate(value)} is not a number")
    if not isinstance(value, str):
        number = Decimal(str(value))
        if not number.is_finite():
            raise InvalidRowError(f"price {abbreviate(value)} is not a finite number")
        return number, ()
    match = PRICE_PATTERN.fullmatch(value.strip())
    if not match:
        raise InvalidRowError(f"price {abbreviate(value)} is not a positive number with at most a currency beside it")
    marks = {_parse_currency_mark(mark) for mark in match.group("before", "after") if mark}
    if len(marks) > 1:
        raise InvalidRowError(f"price {abbreviate(value)} names two currencies")
    return _parse_amount(re.sub(r"[\s']", "", match["number"]), value), marks.pop() if marks else ()


def _parse_currency_mark(mark: str) -> tuple[str, ...]:
    known = CODES_BY_SIGN.get(mark.lower().rstrip("."))
    if not known and not CURRENCY_CODE_PATTERN.fullmatch(mark):
        raise InvalidRowError(f"currency {abbreviate(mark)} is unknown: write its ISO code, as USD")
    return known or (mark.upper(),)


def _parse_amount(digits: str, value: str) -> Decimal:
    if PLAIN_AMOUNT.fullmatch(digits):
        return Decimal(digits)
    if COMMA_GROUPED_AMOUNT.fullmatch(digits):
        return Decimal(digits.replace(",", ""))
    if DECIMAL_COMMA_AMOUNT.fullmatch(digits):
        return Decimal(digits.replace(".", "").replace(",", "."))
    raise InvalidRowError(f"price {abbreviate(value)} can be read in two ways, or in none: write it as 1234.50")
