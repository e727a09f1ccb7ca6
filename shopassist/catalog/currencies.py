"""The table of currencies: how each is written in questions, catalogue files and answers.

A new currency needs one row here and one example in its test.
"""

import re
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Currency:
    """One currency; lists are separated by spaces.

    `symbol` and `name` are for answers. `before` and `after` are marks beside an amount in a question; "max" before one
    of `max_marks` is a limit. `signs` are marks in catalogue files: of several currencies with one sign the first row
    is meant. `filler` words say nothing about a product. `whole_amounts`: minor units are left out where they are zero.
    `store` ends the host name of Amazon's shop.
    """

    code: str
    symbol: str = ""
    name: str = ""
    before: str = ""
    after: str = ""
    max_marks: str = ""
    signs: str = ""
    filler: str = ""
    has_minor_unit: bool = True
    indian_groups: bool = False
    whole_amounts: bool = False
    store: str = "com"


CURRENCIES = (
    Currency(
        "INR", "₹", "rupees (₹)", before="₹ rs rs. inr rupee rupees", after="₹ /- rs inr rupee rupees",
        max_marks="₹ rs inr", signs="₹ rs", filler="rupee rupees", indian_groups=True, whole_amounts=True, store="in",
    ),
    Currency(
        "USD", "$", "US dollars ($)", before="us$ usd $", after="$ usd dollar dollars bucks", max_marks="$",
        signs="$ us$", filler="dollar dollars",
    ),
    Currency("EUR", "€", "euros (€)", before="€ eur", after="€ eur euro euros", max_marks="€", signs="€"),
    Currency("GBP", "£", "pounds (£)", before="£ gbp", after="£ gbp pound pounds", max_marks="£", signs="£"),
    *(Currency(code, signs="rs") for code in ("PKR", "LKR", "NPR", "MUR")),
    *(Currency(code, signs="$") for code in ("CAD", "AUD", "NZD", "SGD", "HKD", "MXN")),
    Currency("JPY", signs="¥", has_minor_unit=False),
    Currency("CNY", signs="¥"),
    Currency("KRW", signs="₩", has_minor_unit=False),
    Currency("PLN", signs="zł"),
    Currency("TRY", signs="₺"),
    Currency("RUB", signs="₽"),
    Currency("VND", signs="₫", has_minor_unit=False),
    Currency("THB", signs="฿"),
    *(Currency(code, has_minor_unit=False) for code in ("CLP", "ISK", "XAF", "XOF", "PYG", "UGX")),
)  # fmt: skip

BY_CODE = {row.code: row for row in CURRENCIES}
CODE_BY_MARK = {mark: row.code for row in CURRENCIES for mark in f"{row.before} {row.after}".split()}
CODES_BY_SIGN = {
    sign: tuple(row.code for row in CURRENCIES if sign in row.signs.split())
    for sign in dict.fromkeys(sign for row in CURRENCIES for sign in row.signs.split())
}
FILLER_WORDS = " ".join(row.filler for row in CURRENCIES if row.filler)


def find_currency(code: str | None) -> Currency:
    """Return the row of a currency; for one that is not listed, a row with the defaults."""
    return BY_CODE.get(code or "") or Currency(code or "")


def build_mark_pattern(marks: str) -> str:
    """Return a pattern of the marks in a field of all rows: "before", "after" or "max_marks"; the longest first."""
    found = {mark for row in CURRENCIES for mark in getattr(row, marks).split()}
    ends = "(?![a-z])" if marks == "after" else ""
    ordered = sorted(found, key=lambda mark: (-len(mark), mark))
    return f"(?:{'|'.join(re.escape(mark) + (ends if mark.isalpha() else '') for mark in ordered)})"


SIGNS = "".join(sorted({mark for mark in CODE_BY_MARK if len(mark) == 1}))
"""Single-character marks, for a character class."""


def format_money(amount: Decimal | float, code: str) -> str:
    """Format an amount: ₹1,49,999 (minor units only if not zero), $1,499.00, and `JPY 1,499.00` without a symbol."""
    currency = find_currency(code)
    value = Decimal(str(amount)).quantize(Decimal("0.01"))
    sign = "-" if value < 0 else ""
    whole, _, fraction = f"{abs(value):.2f}".partition(".")
    # Indian digits are grouped as 1,49,999: three at the end, two elsewhere.
    digits = re.sub(r"(?<=\d)(?=(?:\d{2})*\d{3}$)", ",", whole) if currency.indian_groups else f"{int(whole):,}"
    minor = "" if currency.whole_amounts and fraction == "00" else f".{fraction}"
    return f"{sign}{currency.symbol or f'{code} '}{digits}{minor}"
