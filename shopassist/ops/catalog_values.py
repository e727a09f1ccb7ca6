"""Values of foreign catalogues: text, numbers, dates and links, refused with a reason when they cannot be kept."""

import math
import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote_plus, urlsplit

from shopassist.models.text import storable

NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
SPACES = re.compile(r"\s+")
MARKUP = re.compile(r"<[a-zA-Z/!]|&[#\w]+;")
YES, NO = frozenset({"true", "yes", "y"}), frozenset({"false", "no", "n"})
EXACT_INTEGERS = 2**53
LONGEST_SEARCH = 150


class Refused(ValueError):  # noqa: N818 - a verdict on one row, not an error of the import
    """A row cannot be taken; the message is the reason shown to the owner of the file."""


class _Visible(HTMLParser):
    """Collects what a reader would see of a piece of HTML."""

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


def plain(name: str, value: Any, longest: int) -> str | None:
    """`value` as text in one line without markup, None when nothing is left.

    Raises `Refused` over `longest` characters and for characters that cannot be stored.
    """
    if value is None:
        return None
    content = value if isinstance(value, str) else str(value)
    if MARKUP.search(content):
        visible = _Visible()
        visible.feed(content)
        visible.close()
        content = "".join(visible.parts)
    content = SPACES.sub(" ", content).strip()
    try:
        storable(content)
    except ValueError as error:
        raise Refused(f"{name} {error}") from None
    if len(content) > longest:
        raise Refused(f"{name} is longer than {longest:,} characters")
    return content or None


def number_of(name: str, value: Any, lowest: int, highest: int) -> Decimal | None:
    """A finite number within both limits, None when it is empty. Raises `Refused`."""
    if value is None or value == "":
        return None
    try:
        number = Decimal("nan") if isinstance(value, bool) else Decimal(str(value).replace(",", "").strip())
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or not lowest <= number <= highest:
        raise Refused(f"{name} {shown(value)} is not a number from {lowest} to {highest}")
    return number


def day_of(value: Any) -> date | None:
    """An ISO date, or the date of an ISO instant; None when it is empty. Raises `Refused`."""
    if value is None or value == "":
        return None
    try:
        return datetime.fromisoformat(str(value).strip()).date()
    except ValueError:
        raise Refused(f"date {shown(value)} is not written as YYYY-MM-DD") from None


def link_of(value: Any, longest: int) -> str | None:
    """An http(s) address, None when it is empty. Raises `Refused` for any other scheme."""
    address = str(value).strip() if value is not None else ""
    if not address:
        return None
    try:
        parts = urlsplit(storable(address))
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and "//" in address[:8]
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\\<>\"]", address):
        raise Refused(f"link {shown(value)} is no http(s) address")
    if len(address) > longest:
        raise Refused(f"link is longer than {longest:,} characters")
    return address


def store_link(template: str | None, brand: str | None, title: str, currency: str | None) -> str:
    """A search for the product in a store, from `template` with its `{query}`; Amazon's of the currency by default."""
    if template is None:
        template = f"https://www.amazon.{'in' if currency == 'INR' else 'com'}/s?k={{query}}"
    named = not brand or title.lower().startswith(brand.lower())
    query = title if named else f"{brand} {title}"
    return template.replace("{query}", quote_plus(query[:LONGEST_SEARCH]))


def fact_of(name: str, value: Any, longest: int) -> bool | float | str | None:
    """A fact as JSON keeps it, None when it is empty. Text that is a number or a yes or no becomes one.

    Raises `Refused` for NaN, infinity and text that cannot be stored.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise Refused(f"{name} is not a finite number")
        whole = isinstance(value, int) or (value.is_integer() and abs(value) < EXACT_INTEGERS)
        return int(value) if whole else value
    content = plain(name, value, longest)
    if content is None:
        return None
    if NUMBER.fullmatch(content):
        return fact_of(name, float(content), longest)
    lowered = content.lower()
    return lowered in YES if lowered in YES | NO else content


def shown(value: Any) -> str:
    """A foreign value, short and harmless, for a reason."""
    return ascii(value)[:60]
