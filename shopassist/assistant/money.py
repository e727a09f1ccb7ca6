"""Amounts of money as people of the market write them."""

from decimal import Decimal

SYMBOLS = {"INR": "₹", "USD": "$", "EUR": "€", "GBP": "£"}
GROUP = 3


def money(amount: Decimal | float, currency: str) -> str:
    """`amount` for reading: ₹1,49,999 (paise only where there are some), $1,499.00, and `JPY 1,499.00` for others."""
    value = Decimal(str(amount)).quantize(Decimal("0.01"))
    sign = "-" if value < 0 else ""
    whole, _, fraction = f"{abs(value):.2f}".partition(".")
    if currency == "INR":
        return f"{sign}₹{_indian(whole)}" + ("" if fraction == "00" else f".{fraction}")
    symbol = SYMBOLS.get(currency, f"{currency} ")
    return f"{sign}{symbol}{int(whole):,}.{fraction}"


def _indian(digits: str) -> str:
    head, tail = digits[:-GROUP], digits[-GROUP:]
    groups: list[str] = []
    while head:
        head, group = head[:-2], head[-2:]
        groups.insert(0, group)
    return ",".join([*groups, tail])
