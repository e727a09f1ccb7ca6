"""Patterns of amounts and comparisons in a question, and the quantities read from them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from shopassist.assistant.parsing.lexicon import NUMBER_PLACEHOLDER
from shopassist.catalog.attributes import ATTRIBUTE_BY_SUBJECT, ATTRIBUTES, FILLER_WORDS, UNIT_BY_NAME, UNITS
from shopassist.catalog.currencies import CODE_BY_MARK, SIGNS, build_mark_pattern

MULTIPLES = {
    "hundred": 100, "k": 1000, "thousand": 1000, "hazaar": 1000, "hazar": 1000, "hajar": 1000, "l": 100_000,
    "lakh": 100_000, "lakhs": 100_000, "lac": 100_000, "lacs": 100_000,
    "million": 1_000_000, "cr": 10_000_000, "crore": 10_000_000, "crores": 10_000_000,
}  # fmt: skip
NUMBER_WORDS = {
    "half": "0.5", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20",
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
    "ek": "1", "do": "2", "teen": "3", "char": "4", "chaar": "4", "panch": "5", "paanch": "5", "das": "10",
    "pandrah": "15", "bees": "20", "pachees": "25", "tees": "30", "chalis": "40", "pachas": "50",
}  # fmt: skip

UNIT_PATTERN = re.compile("|".join(f"(?P<{unit.name}>{unit.pattern})" for unit in UNITS))

_NUMBER = r"(?:\d{1,3}(?:,\d{2,3}){1,4}|\d{1,12})(?:\.\d{1,4})?(?![\d])"
_BEFORE = build_mark_pattern("before")
_AFTER = build_mark_pattern("after")
_MULTIPLE = r"(?:(?:hundred|k|thousand|hazaar|hazar|hajar|l|lakhs?|lacs?|million|cr|crores?)(?![a-z]))"
_ANY_UNIT = "|".join(unit.pattern for unit in UNITS)


def _amount(n: str) -> str:
    return (
        rf"(?:(?P<before{n}>{_BEFORE}) ?)?(?P<number{n}>{_NUMBER})(?: ?(?P<multiple{n}>{_MULTIPLE}))?"
        rf"(?P<plus{n}> ?\+| plus(?= (?:{_ANY_UNIT})))?"
        rf"(?: ?(?P<after{n}>{_AFTER})|[ -]{{0,2}}(?P<unit{n}>{_ANY_UNIT}))?"
    )


_NOT = (
    r"(?:not|no|never|cannot|(?:do|does|should|must|would|can)n't)"
    r"(?: (?:be|cost|costing|costs|go|priced|rated)){0,3}? (?:to )?"
)
_MORE = (
    r"(?:more ?th[ae]n|over|above|greater than|higher than|larger than|bigger than|beyond|upwards? of|exceed(?:ing|s)?|"
    r"costlier than|heavier than|longer than|louder than|>)"
)
_LESS = r"(?:less(?:er)? ?th[ae]n|under|below|lower than|smaller than|fewer than|cheaper than|lighter than|beneath|<)"
# "iPhone XS Max 64GB" is a model: "max" is a limit only before a sum of money.
_MAX = rf"(?<!pro )(?<!xs )(?<!\d )max\.?(?=:? ?(?:price|budget|cost|{build_mark_pattern('max_marks')}|\d[\d,]{{3}}))"
_LOW = (
    rf"(?P<low>{_NOT}{_LESS}|at ?least|minimum|min\.?|starting (?:at|from)|starts? (?:at|from)|>=|≥|not less than|"
    rf"(?P<strict_low>{_MORE}))"
)
_HIGH = (
    rf"(?P<high>{_NOT}{_MORE}|at ?most|up ?to|upper limit|maximum|{_MAX}|within|budget|limit|<=|≤|"
    rf"(?P<strict_high>{_LESS}))"
)
_NEAR = r"(?P<near>around|(?<!what )(?<!how )about|approx(?:imately|\.)?|roughly|nearly|near|close to|~)"
_FOR = r"(?P<budget>for|in|at|or|just|only|cost(?:s|ing)?|priced?(?: at)?)"
_FILL = (
    r"(?: ?(?::|=|\bof\b|\bprice\b|\bpriced\b|\bthe\b|\ba\b|\bis\b|\bto\b|\bcosts?\b|\bbudget\b|\brange\b|"
    rf"\btotal\b|\bat\b|\bonly\b|\b(?:{'|'.join(FILLER_WORDS)})\b)){{0,3}} ?"
)
# In Hindi the comparison follows the amount: "20000 ke andar" is within 20,000.
_MORE_AFTER = (
    r"(?P<or_more> ?(?:or|and|&) (?:more|higher|above|over|greater|better|up|upwards?|bigger|larger|later)\b"
    rf"(?! ?[\d{SIGNS}])|"
    r" ?\+(?!\d)| (?:minimum|min|onwards?|upwards|se (?:zyada|jyada|upar|uper))\b)"
)
_LESS_AFTER = (
    r"(?P<or_less> (?:or|and|&) (?:less|lower|under|below|fewer|cheaper|smaller)\b"
    rf"(?! ?[\d{SIGNS}])|"
    r" (?:maximum|tops|max|tak|se (?:kam|niche|neeche)|ke (?:andar|under|niche|neeche))\b)"
)
_DASH = r"[-\u2013\u2014]"
_START = r"(?<![\w.,])(?<!\w-)(?<!\w')"

BETWEEN = re.compile(
    rf"(?<!\w)(?:between|ranging from|range of|from) ?(?:a |the )?"
    rf"{_amount('1')} ?(?:and|to|{_DASH}|&|or) ?{_amount('2')}"
)
SPAN = re.compile(
    rf"{_START}{_amount('1')} ?(?:to|{_DASH}|till|until|se) ?{_amount('2')}(?: ke (?:beech|bich))?(?![\w-])"
)
SINGLE = re.compile(
    rf"{_START}(?:(?:{_LOW}|{_HIGH}|{_NEAR}|{_FOR}){_FILL})?{_amount('')}(?:{_MORE_AFTER}|{_LESS_AFTER})?(?![\w])"
)
PAIR = re.compile(
    rf"{_START}(?P<ram>\d{{1,2}}) ?(?:gb)?(?: ram)? ?[/+] ?(?P<storage>\d{{2,4}}) ?(?:gb|(?P<tb>tb))(?!\w)"
)
BARE_PAIR = re.compile(
    rf"{_START}(?P<ram>2|3|4|6|8|12|16|18|24|32)[/+](?P<storage>32|64|128|256|512|1024)(?P<tb>(?!))?(?!\w)"
)
WORDED_NUMBER = re.compile(
    rf"\b({'|'.join(NUMBER_WORDS)})(?:[ -](a|one|two|three|four|five|six|seven|eight|nine))?"
    r"(?= (?:hundred|thousand|hazaar|hazar|hajar|lakhs?|lacs?|crores?|gb|inch|stars?)\b)"
)
COMPOUND = re.compile(
    r"(?<![\w.])(?P<many>\d{1,3}) (?P<large>thousand|hazaar|hazar|hajar|lakhs?|lacs?|crores?) (?:and )?"
    r"(?P<few>\d{1,2}) (?P<small>hundred|thousand|hazaar|hazar|hajar|lakhs?|lacs?)\b"
)
_SUBJECTS = {row.subject: row.subject_pattern for row in ATTRIBUTES if row.subject_pattern} | {
    "price": r"pric(?:e|ed|es|ing)|cost(?:s|ing)?|budget"
}
SUBJECT_PATTERN = re.compile(
    rf"\b(?:{'|'.join(f'(?P<{name}>{pattern})' for name, pattern in _SUBJECTS.items())})"
    r"(?: ?(?:is|are|of|should|be|must|it|has|by|the|a|an|with|from|at|range|ranging|size|capacity|:|\(|,)){0,4} ?$"
)

LOOK_BACK_CHARACTERS = 48
MIN_BARE_PRICE = 1000
YEARS = (1980, 2040)
RESOLUTIONS = {"2", "4", "5", "6", "8"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A limit in a question. `subject` is `price` or the name of a unit; `is_bare`: without a comparison."""

    subject: str
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    exclusive: bool = False
    is_bare: bool = False
    is_approximate: bool = False
    currency: str | None = None


def extract_quantities(text: str) -> tuple[str, list[Quantity]]:
    """Return a normalised text with placeholders for all quantities, and the quantities."""
    found: list[Quantity] = []
    text = WORDED_NUMBER.sub(
        lambda m: str(Decimal(NUMBER_WORDS[m[1]]) + Decimal(NUMBER_WORDS.get(m[2] or "", "0"))), text
    )
    if not any(c.isdigit() for c in text):
        return text, found
    # One number for "1 lakh 20 thousand".
    text = COMPOUND.sub(
        lambda m: str(int(m["many"]) * MULTIPLES[m["large"]] + int(m["few"]) * MULTIPLES[m["small"]]), text
    )

    def replace_quantities(read: Callable[[re.Match[str]], list[Quantity]], match: re.Match[str]) -> str:
        quantities = read(match)
        found.extend(quantities)
        if not quantities:
            return match[0]
        # Only before a sum of money is the preposition part of the limit, not in "bag for a 15 inch laptop".
        kept = match.groupdict().get("budget") if quantities[0].subject != "price" else None
        return f"{kept or ''} {NUMBER_PLACEHOLDER}"

    readers = {PAIR: _read_pair, BARE_PAIR: _read_pair, BETWEEN: _read_range, SPAN: _read_range, SINGLE: _read_single}
    for pattern, read in readers.items():
        text = pattern.sub(partial(replace_quantities, read), text)
    return text, found


def _read_pair(match: re.Match[str]) -> list[Quantity]:
    storage = Decimal(match["storage"]) * (1000 if match["tb"] else 1)
    return [Quantity("ram", Decimal(match["ram"]), is_bare=True), Quantity("storage", storage, is_bare=True)]


def _read_value(match: re.Match[str], n: str, multiple: str | None = None) -> Decimal:
    number = Decimal(match[f"number{n}"].replace(",", ""))
    return number * MULTIPLES.get(match[f"multiple{n}"] or multiple or "", 1)


def _read_currency(match: re.Match[str], *ends: str) -> str | None:
    marks = [match[f"{side}{n}"] for n in ends for side in ("before", "after")]
    return next((CODE_BY_MARK[mark] for mark in marks if mark), None)


def _unit_name(unit: str | None) -> str | None:
    matched = UNIT_PATTERN.fullmatch(unit) if unit else None
    return matched.lastgroup if matched else None


def _read_range(match: re.Match[str]) -> list[Quantity]:
    currency = _read_currency(match, "1", "2")
    high = _read_value(match, "2")
    shared = match["multiple2"] if Decimal(match["number1"].replace(",", "")) < high else None
    low = _read_value(match, "1", None if match["before1"] and not shared else shared)
    if low > high:
        low = _read_value(match, "1")
    unit = _unit_name(match["unit2"]) or _unit_name(match["unit1"])
    subject = _find_subject(match, currency, unit, _is_price_range(match, low, high))
    if subject is None or low > high:
        return []
    return [_convert_units(Quantity(subject, low, high, currency=currency))]


def _is_price_range(match: re.Match[str], low: Decimal, high: Decimal) -> bool:
    if match[0].startswith(("between", "rang")) or match["multiple2"]:
        return True
    return low >= MIN_BARE_PRICE / 10 and high > low and not (_is_year(low) and _is_year(high))


def _read_single(match: re.Match[str]) -> list[Quantity]:
    value, currency, unit = _read_value(match, ""), _read_currency(match, ""), _unit_name(match["unit"])
    compared = bool(match["low"] or match["high"] or match["near"] or match["or_more"] or match["or_less"])
    if not (compared or currency) and _is_label(match):
        return []
    budget = bool(match["budget"]) and value >= MIN_BARE_PRICE and not _is_year(value)
    subject = _find_subject(match, currency, unit, compared or budget or bool(match["multiple"]))
    if subject is None or (subject == "price" and not compared and match["plus"] and not currency):
        return []
    return [_convert_units(_build_quantity(match, subject, value, currency))]


def _is_label(match: re.Match[str]) -> bool:
    """Return whether the number is part of a name: 4K is a resolution, 5G a network; "1 l" is a litre."""
    resolution = match["multiple"] == "k" and match["number"] in RESOLUTIONS and not match["unit"]
    return resolution or match["multiple"] == "l" or (match["unit"] == "g" and len(match["number"]) == 1)


def _find_subject(match: re.Match[str], currency: str | None, unit: str | None, priced: bool) -> str | None:
    if currency:
        return "price"
    if unit == "other":
        return None
    if unit:
        return unit
    stated = SUBJECT_PATTERN.search(match.string[max(0, match.start() - LOOK_BACK_CHARACTERS) : match.start()])
    subject = stated.lastgroup if stated else None
    groups = match.groupdict()
    number = Decimal((groups.get("number") or groups.get("number2") or "0").replace(",", ""))
    multiple = groups.get("multiple") or groups.get("multiple2")
    row = ATTRIBUTE_BY_SUBJECT.get(subject or "")
    if row and row.max_bare and (multiple or number > row.max_bare or not priced):
        subject = None
    if row and row.bare_minimum_only and groups.get("high"):
        subject = None
    return subject or ("price" if priced else None)


def _build_quantity(match: re.Match[str], subject: str, value: Decimal, currency: str | None) -> Quantity:
    if match["high"] or match["or_less"]:
        return Quantity(subject, None, value, bool(match["strict_high"]), currency=currency)
    if match["near"]:
        return Quantity(subject, value, value, is_approximate=True, currency=currency)
    if match["low"] or match["or_more"] or match["plus"]:
        return Quantity(subject, value, None, bool(match["strict_low"]), currency=currency)
    if subject == "price":
        return Quantity(subject, None, value, currency=currency)
    return Quantity(subject, value, None, is_bare=True)


def _convert_units(quantity: Quantity) -> Quantity:
    """Convert to the base unit; a value too large for its subject is about another ("100 rating": reviews)."""
    row, unit = ATTRIBUTE_BY_SUBJECT.get(quantity.subject), UNIT_BY_NAME.get(quantity.subject)
    low, high = quantity.minimum, quantity.maximum
    if row and row.excess and max(limit for limit in (low, high) if limit is not None) > row.excess[0]:
        return replace(quantity, subject=row.excess[1])
    if unit is None or not unit.base:
        return quantity
    return replace(quantity, subject=unit.base, minimum=low and low * unit.factor, maximum=high and high * unit.factor)


def _is_year(value: Decimal) -> bool:
    return YEARS[0] <= value <= YEARS[1] and value == value.to_integral_value()
