"""Tables of currencies: codes, marks, names and minor units; formats amounts of money."""

from decimal import Decimal

CURRENCY_BY_MARK = {
    "₹": "INR", "rs": "INR", "rs.": "INR", "inr": "INR", "rupee": "INR", "rupees": "INR", "/-": "INR",
    "$": "USD", "us$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD", "bucks": "USD",
    "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR",
    "£": "GBP", "gbp": "GBP", "pound": "GBP", "pounds": "GBP",
}  # fmt: skip

CURRENCY_SYMBOLS = {"INR": "₹", "USD": "$", "EUR": "€", "GBP": "£"}
LAST_GROUP_DIGITS = 3


def format_money(amount: Decimal | float, currency: str) -> str:
    """`amount` for reading: ₹1,49,999 (paise only where there are some), $1,499.00, and `JPY 1,499.00` for others."""
    value = Decimal(str(amount)).quantize(Decimal("0.01"))
    sign = "-" if value < 0 else ""
    whole, _, fraction = f"{abs(value):.2f}".partition(".")
    if currency == "INR":
        return f"{sign}₹{_group_indian_digits(whole)}" + ("" if fraction == "00" else f".{fraction}")
    symbol = CURRENCY_SYMBOLS.get(currency, f"{currency} ")
    return f"{sign}{symbol}{int(whole):,}.{fraction}"


def _group_indian_digits(digits: str) -> str:
    head, tail = digits[:-LAST_GROUP_DIGITS], digits[-LAST_GROUP_DIGITS:]
    groups: list[str] = []
    while head:
        head, group = head[:-2], head[-2:]
        groups.insert(0, group)
    return ",".join([*groups, tail])


CURRENCY_NAMES = {"INR": "rupees (₹)", "USD": "US dollars ($)", "EUR": "euros (€)", "GBP": "pounds (£)"}

CURRENCIES_BY_SIGN = {
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

CURRENCIES_WITHOUT_MINOR_UNIT = frozenset({"JPY", "KRW", "VND", "CLP", "ISK", "XAF", "XOF", "PYG", "UGX"})
