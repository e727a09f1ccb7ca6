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
    of `max_marks` is a limit. `signs` are signs and names in catalogue files, in lower case without spaces and dots: of
    several currencies with one sign the first row is meant. `filler` words say nothing about a product. `minor_digits`
    is the number of digits of minor units. `whole_amounts`: minor units are left out where they are zero. `store` ends
    the host name of Amazon's shop.
    """

    code: str
    symbol: str = ""
    name: str = ""
    before: str = ""
    after: str = ""
    max_marks: str = ""
    signs: str = ""
    filler: str = ""
    minor_digits: int = 2
    indian_groups: bool = False
    whole_amounts: bool = False
    store: str = "com"


CURRENCIES = (
    Currency(
        "INR", "₹", "rupees (₹)", before="₹ rs rs. inr rupee rupees", after="₹ /- rs inr rupee rupees",
        max_marks="₹ rs inr", signs="₹ rs ₨ rupee rupees rupien roupies rúpias रु रुपये रुपए", filler="rupee rupees",
        indian_groups=True, whole_amounts=True, store="in",
    ),
    Currency(
        "USD", "$", "US dollars ($)", before="us$ usd $", after="$ usd dollar dollars bucks", max_marks="$",
        signs="$ us$ usd$ dollar dollars usdollar usdollars dólares", filler="dollar dollars",
    ),
    Currency(
        "EUR", "€", "euros (€)", before="€ eur", after="€ eur euro euros", max_marks="€", signs="€ euro euros यूरो",
    ),
    Currency(
        "GBP", "£", "pounds (£)", before="£ gbp", after="£ gbp pound pounds", max_marks="£",
        signs="£ ￡ gb£ pound pounds poundsterling sterling",
    ),
    *(Currency(code, signs="rs ₨") for code in ("PKR", "LKR", "NPR", "MUR")),
    Currency("CAD", signs="$ c$ ca$ can$ cad$ cdn$"),
    Currency("AUD", signs="$ a$ au$ aud$"),
    Currency("NZD", signs="$ nz$"),
    Currency("SGD", signs="$ s$ sg$"),
    Currency("HKD", signs="$ hk$"),
    Currency("MXN", signs="$ mx$ mex$ pesos"),
    Currency("TWD", signs="$ nt$"),
    Currency("BRL", signs="r$ real reais"),
    Currency("AED", signs="dh dhs dirham dirhams د.إ aeddirhams".replace(".", "")),
    Currency("SAR", signs="sr ﷼ رس riyal riyals"),
    Currency("QAR", signs="qr"),
    *(Currency(code, signs=sign, minor_digits=3) for code, sign in (("KWD", "kd"), ("BHD", "bd"), ("OMR", "ro"))),
    *(Currency(code, minor_digits=3) for code in ("IQD", "JOD", "LYD", "TND")),
    *(Currency(code, signs="kr") for code in ("SEK", "NOK", "DKK")),
    Currency("ISK", signs="kr", minor_digits=0),
    Currency("CHF", signs="sfr franken"),
    Currency("JPY", signs="¥ ￥ yen 円", minor_digits=0),
    Currency("CNY", signs="¥ ￥ yuan rmb 元"),
    Currency("KRW", signs="₩ won", minor_digits=0),
    Currency("PLN", signs="zł zl"),
    Currency("CZK", signs="kč"),
    Currency("HUF", signs="ft"),
    Currency("RON", signs="lei"),
    Currency("BGN", signs="лв"),
    Currency("TRY", signs="₺ tl"),
    Currency("RUB", signs="₽ руб"),
    Currency("UAH", signs="₴ грн"),
    Currency("KZT", signs="₸"),
    Currency("GEL", signs="₾"),
    Currency("ILS", signs="₪ nis"),
    Currency("EGP", signs="e£ le"),
    Currency("ZAR", signs="r rand"),
    Currency("NGN", signs="₦"),
    Currency("GHS", signs="₵ gh₵"),
    Currency("KES", signs="ksh"),
    Currency("BDT", signs="৳ tk taka"),
    Currency("THB", signs="฿ baht"),
    Currency("IDR", signs="rp"),
    Currency("MYR", signs="rm ringgit"),
    Currency("PHP", signs="₱"),
    Currency("PEN", signs="s/"),
    Currency("CRC", signs="₡"),
    Currency("VND", signs="₫ đ", minor_digits=0),
    *(
        Currency(code, minor_digits=0)
        for code in ("BIF", "CLP", "DJF", "GNF", "KMF", "PYG", "RWF", "UGX", "VUV", "XAF", "XOF", "XPF")
    ),
)  # fmt: skip

BY_CODE = {row.code: row for row in CURRENCIES}
CODE_BY_MARK = {mark: row.code for row in CURRENCIES for mark in f"{row.before} {row.after}".split()}
CODES_BY_SIGN = {
    sign: tuple(row.code for row in CURRENCIES if sign in row.signs.split())
    for sign in dict.fromkeys(sign for row in CURRENCIES for sign in row.signs.split())
}
FILLER_WORDS = " ".join(row.filler for row in CURRENCIES if row.filler)


ISO_CODES = frozenset(
    re.findall(
        "[A-Z]{3}",
        """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL
    HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD
    MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG
    QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD
    TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ANG HRK ZWL VED
""",
    )
)
"""ISO 4217, with codes that old files still use."""


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
