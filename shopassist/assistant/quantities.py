"""Numbers in a question: how much of what, and on which side of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from shopassist.assistant.number_patterns import (
    BARE_PAIR,
    BETWEEN,
    CHEAPEST_BARE_PRICE,
    COMPOUND,
    CURRENCIES,
    HIGHEST_RATING,
    LARGEST,
    LOOK_BACK,
    MULTIPLES,
    PAIR,
    RESOLUTIONS,
    SINGLE,
    SPAN,
    SUBJECT,
    SUBJECTS,
    UNIT,
    WORDED,
    WORDED_NUMBER,
    YEARS,
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A limit that was stated. `subject` is `price`, or what is measured, named as in `UNITS`."""

    subject: str
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    exclusive: bool = False
    exact: bool = False
    near: bool = False
    currency: str | None = None


def take_quantities(text: str, blank: Callable[[re.Match[str]], str]) -> tuple[str, list[Quantity]]:
    """The text with what was understood replaced by `blank`, and the quantities in it.

    `text` is lower case with single spaces.
    """
    found: list[Quantity] = []
    if not any(c.isdigit() for c in text) and not WORDED_NUMBER.search(text):
        return text, found
    text = WORDED_NUMBER.sub(lambda m: _digits(m[1], m[2]), text)
    text = COMPOUND.sub(_sum, text)

    def taking(read: Callable[[re.Match[str]], list[Quantity]]) -> Callable[[re.Match[str]], str]:
        def substitute(match: re.Match[str]) -> str:
            quantities = read(match)
            found.extend(quantities)
            if not quantities:
                return match[0]
            # "Bag for a 15 inch laptop": only before a sum of money is the preposition part of the limit.
            kept = match.groupdict().get("budget") if quantities[0].subject != "price" else None
            return f"{kept or ''} {blank(match)}"

        return substitute

    for pattern, read in ((PAIR, _pair), (BARE_PAIR, _pair), (BETWEEN, _range), (SPAN, _range), (SINGLE, _single)):
        text = pattern.sub(taking(read), text)
    return text, found


def _digits(tens: str, ones: str | None) -> str:
    return str(Decimal(WORDED[tens]) + Decimal(WORDED.get(ones or "", "0")))


def _sum(match: re.Match[str]) -> str:
    """One number for "1 lakh 20 thousand"."""
    return str(int(match["many"]) * MULTIPLES[match["large"]] + int(match["few"]) * MULTIPLES[match["small"]])


def _pair(match: re.Match[str]) -> list[Quantity]:
    storage = Decimal(match["storage"]) * (1000 if match["tb"] else 1)
    return [Quantity("ram", Decimal(match["ram"]), exact=True), Quantity("storage", storage, exact=True)]


def _value(match: re.Match[str], n: str, multiple: str | None = None) -> Decimal:
    number = Decimal(match[f"number{n}"].replace(",", ""))
    return number * MULTIPLES.get(match[f"multiple{n}"] or multiple or "", 1)


def _currency(match: re.Match[str], *ends: str) -> str | None:
    marks = [match[f"{side}{n}"] for n in ends for side in ("before", "after")]
    return next((CURRENCIES[mark] for mark in marks if mark), None)


def _measure(unit: str | None) -> str | None:
    matched = UNIT.fullmatch(unit) if unit else None
    return matched.lastgroup if matched else None


def _before(match: re.Match[str]) -> str | None:
    behind = match.string[max(0, match.start() - LOOK_BACK) : match.start()]
    subject = SUBJECT.search(behind)
    return SUBJECTS[subject[1][:3]] if subject else None


def _range(match: re.Match[str]) -> list[Quantity]:
    currency = _currency(match, "1", "2")
    high = _value(match, "2")
    shared = match["multiple2"] if Decimal(match["number1"].replace(",", "")) < high else None
    low = _value(match, "1", None if match["before1"] and not shared else shared)
    if low > high:
        low = _value(match, "1")
    unit = _measure(match["unit2"]) or _measure(match["unit1"])
    subject = _subject(match, currency, unit, _bare_range(match, low, high))
    if subject is None or low > high:
        return []
    return [_scaled(Quantity(subject, low, high, currency=currency))]


def _bare_range(match: re.Match[str], low: Decimal, high: Decimal) -> bool:
    if match[0].startswith(("between", "rang")) or match["multiple2"]:
        return True
    return low >= CHEAPEST_BARE_PRICE / 10 and high > low and not (_is_year(low) and _is_year(high))


def _single(match: re.Match[str]) -> list[Quantity]:
    value, currency, unit = _value(match, ""), _currency(match, ""), _measure(match["unit"])
    compared = bool(match["low"] or match["high"] or match["near"] or match["or_more"] or match["or_less"])
    if not (compared or currency) and _is_label(match):
        return []
    budget = bool(match["budget"]) and value >= CHEAPEST_BARE_PRICE and not _is_year(value)
    subject = _subject(match, currency, unit, compared or budget or bool(match["multiple"]))
    if subject is None or (subject == "price" and not compared and match["plus"] and not currency):
        return []
    return [_scaled(_sided(match, subject, value, currency))]


def _is_label(match: re.Match[str]) -> bool:
    """Whether the number names a thing: 4K is a resolution, 5G a network, 1 l no lakh."""
    resolution = match["multiple"] == "k" and match["number"] in RESOLUTIONS and not match["unit"]
    return resolution or match["multiple"] == "l" or (match["unit"] == "g" and len(match["number"]) == 1)


def _subject(match: re.Match[str], currency: str | None, unit: str | None, priced: bool) -> str | None:
    if currency:
        return "price"
    if unit == "other":
        return None
    if unit:
        return unit
    subject = _before(match)
    groups = match.groupdict()
    number = Decimal((groups.get("number") or groups.get("number2") or "0").replace(",", ""))
    multiple = groups.get("multiple") or groups.get("multiple2")
    if subject in LARGEST and (multiple or number > LARGEST[subject] or not priced):
        subject = None
    if subject == "mah" and groups.get("high"):
        subject = None
    return subject or ("price" if priced else None)


def _sided(match: re.Match[str], subject: str, value: Decimal, currency: str | None) -> Quantity:
    if match["high"] or match["or_less"]:
        return Quantity(subject, None, value, bool(match["strict_high"]), currency=currency)
    if match["near"]:
        return Quantity(subject, value, value, near=True, currency=currency)
    if match["low"] or match["or_more"] or match["plus"]:
        return Quantity(subject, value, None, bool(match["strict_low"]), currency=currency)
    if subject == "price":
        return Quantity(subject, None, value, currency=currency)
    return Quantity(subject, value, None, exact=True)


def _scaled(quantity: Quantity) -> Quantity:
    """Ratings above five are counts, terabytes are gigabytes, kilograms grams, centimetres inches."""
    subject = quantity.subject
    limits = [limit for limit in (quantity.minimum, quantity.maximum) if limit is not None]
    if subject == "rating" and max(limits) > HIGHEST_RATING:
        return replace(quantity, subject="reviews")
    factor, name = {
        "storage_tb": (Decimal(1000), "storage"),
        "kilograms": (Decimal(1000), "grams"),
        "cm": (Decimal("0.3937"), "inches"),
    }.get(subject, (Decimal(1), subject))
    low, high = quantity.minimum, quantity.maximum
    return replace(quantity, subject=name, minimum=low and low * factor, maximum=high and high * factor)


def _is_year(value: Decimal) -> bool:
    return YEARS[0] <= value <= YEARS[1] and value == value.to_integral_value()
