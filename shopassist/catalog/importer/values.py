"""Parse values of catalogue files: text, numbers, dates, links; InvalidRowError if unusable."""

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, quote_plus, urljoin, urlsplit

from shopassist.catalog.currencies import find_currency
from shopassist.text import validate_text

NUMBER_PATTERN = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
MARKUP = re.compile(r"<[a-zA-Z/!]|&[#\w]+;")
YES, NO = frozenset({"true", "yes", "y"}), frozenset({"false", "no", "n"})
MAX_EXACT_INTEGER = 2**53
MAX_SEARCH_LENGTH = 150
PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


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


def complete_link(value: Any, base: str | None) -> Any:
    """Return a link below `base` if it is relative, with https:// if it begins with www., else as it is."""
    address = value.strip() if isinstance(value, str) else ""
    if re.match(r"www\.[^\s/]+\.\w", address):
        return f"https://{address}"
    if not address or base is None or re.match(r"[a-zA-Z][\w+.-]*:", address):
        return value
    return urljoin(base, address)


def fill_link(template: str, values: Mapping[str, Any]) -> str | None:
    """Return the link of a row: {column} is replaced by the column's value; None if one of them is empty."""
    names = PLACEHOLDER.findall(template)
    if any(values.get(name) in (None, "") for name in names):
        return None
    return PLACEHOLDER.sub(lambda match: quote(str(values[match[1]]).strip(), safe=""), template)
