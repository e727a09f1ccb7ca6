"""How shoppers write numbers: currencies, multiples, units, comparisons.

Every pattern is bounded: no repetition is nested in another without a limit, so that reading a question takes time in
proportion to its length.
"""

import re

CURRENCIES = {
    "₹": "INR", "rs": "INR", "rs.": "INR", "inr": "INR", "rupee": "INR", "rupees": "INR", "/-": "INR",
    "$": "USD", "us$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD", "bucks": "USD",
    "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR",
    "£": "GBP", "gbp": "GBP", "pound": "GBP", "pounds": "GBP",
}  # fmt: skip
MULTIPLES = {
    "hundred": 100, "k": 1000, "thousand": 1000, "hazaar": 1000, "hazar": 1000, "hajar": 1000, "l": 100_000,
    "lakh": 100_000, "lakhs": 100_000, "lac": 100_000, "lacs": 100_000,
    "million": 1_000_000, "cr": 10_000_000, "crore": 10_000_000, "crores": 10_000_000,
}  # fmt: skip
WORDED = {
    "half": "0.5", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20",
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
    "ek": "1", "do": "2", "teen": "3", "char": "4", "chaar": "4", "panch": "5", "paanch": "5", "das": "10",
    "pandrah": "15", "bees": "20", "pachees": "25", "tees": "30", "chalis": "40", "pachas": "50",
}  # fmt: skip

_STORED = r"(?:storage|ssd|nvme|rom|hdd|emmc|internal|hard[ -]?(?:disk|drive)|memory card|pen[ -]?drive)"
"""What follows a capacity of storage; it stays in the text, since it may be what is wanted."""

_OTHER = (
    r"(?:mm|ml|m|ft|feet|met(?:re|er)s?|%|percent|years?|yrs?|months?|weeks?|days?|min|minutes?|ports?|pcs|pieces?|"
    r"packs?|cores?|dpi|rpm|fps|nits|degrees?|sim|sims|p|mbps|gbps|in[- ]1|th|st|nd|rd|gen)(?![a-z])"
)
UNITS = (
    ("ram", r"gb ?\+?(?: of)?(?: (?:ddr\w{1,3}|lpddr\w{1,3}|unified))? ?(?:ram|memory(?! card))"),
    ("graphics", r"gb(?: of)? (?:graphics?|gpu|vram|video|nvidia|rtx|gtx)(?![a-z])"),
    ("storage_tb", r"tb(?: of)?(?![a-z])"),
    ("storage", rf"gb(?: of)?(?= ?(?:internal |nvme |sata |portable |external ){{0,2}}{_STORED}(?![a-z]))"),
    ("gb", r"(?:gb|gigs?|gigabytes?)(?![a-z])"),
    ("inches", r"(?:inch(?:es)?|in(?=[ -](?:screen|display|tv|monitor|laptop|tablet))|''|\"|”|″)(?![a-z])"),
    ("rating", r"(?:out of 5|/ ?5|stars?(?: (?:customer )?(?:ratings?|reviews?))?|rat(?:ing|ed))(?![a-z])"),
    ("reviews", r"(?:(?:customer|user|verified|buyer) ){0,2}(?:reviews?|reviewers|ratings|buyers|customers|people)"),
    ("mah", r"(?:mah|milliamp[ -]hours?)(?![a-z])"),
    ("front_mp", r"(?:mp|megapixels?) (?:front|selfie)(?: camera)?(?![a-z])"),
    ("mp", r"(?:mp|megapixels?)(?: (?:main |rear |back |primary )?camera)?(?![a-z])"),
    ("hz", r"(?:hz|hertz)(?![a-z])"),
    ("watts", r"(?:w|watts?)(?![a-z])"),
    ("hours", r"(?:h|hrs?|hours?)(?![a-z])"),
    ("litres", r"(?:litres?|liters?|ltr)(?![a-z])"),
    ("kilograms", r"(?:kg|kgs|kilos?|kilograms?)(?![a-z])"),
    ("grams", r"(?:g|gms?|grams?)(?![a-z])"),
    ("cm", r"(?:cm|cms|centimet(?:re|er)s?)(?![a-z])"),
    ("other", _OTHER),
)  # fmt: skip
UNIT = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in UNITS))

_NUMBER = r"(?:\d{1,3}(?:,\d{2,3}){1,4}|\d{1,12})(?:\.\d{1,4})?(?![\d])"
_BEFORE = r"(?:₹|rs\.?|inr|rupees?|us\$|usd|\$|eur|€|gbp|£)"
_AFTER = r"(?:₹|/-|\$|€|£|(?:rs|inr|rupees?|usd|dollars?|bucks|euros?|eur|pounds?|gbp)(?![a-z]))"
_MULTIPLE = r"(?:(?:hundred|k|thousand|hazaar|hazar|hajar|l|lakhs?|lacs?|million|cr|crores?)(?![a-z]))"
_ANY_UNIT = "|".join(pattern for _, pattern in UNITS)


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
# "iPhone XS Max 64GB" is a model's name: the short form counts only before a sum of money.
_MAX = r"(?<!pro )(?<!xs )(?<!\d )max\.?(?=:? ?(?:price|budget|cost|rs|inr|₹|\$|€|£|\d[\d,]{3}))"
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
    r"(?: ?(?::|=|\bof\b|\bprice\b|\bpriced\b|\bthe\b|\ba\b|\bis\b|\bto\b|\bcosts?\b|\bbudget\b|\brange\b|\brating\b|"
    r"\btotal\b|\bat\b|\bonly\b|\bram\b|\bstorage\b|\bbattery\b)){0,3} ?"
)
# Hindi puts the comparison behind the sum: "20000 ke andar" is within 20,000.
_MORE_AFTER = (
    r"(?P<or_more> ?(?:or|and|&) (?:more|higher|above|over|greater|better|up|upwards?|bigger|larger|later)\b"
    r"(?! ?[\d₹$€£])|"
    r" ?\+(?!\d)| (?:minimum|min|onwards?|upwards|se (?:zyada|jyada|upar|uper))\b)"
)
_LESS_AFTER = (
    r"(?P<or_less> (?:or|and|&) (?:less|lower|under|below|fewer|cheaper|smaller)\b(?! ?[\d₹$€£])|"
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
    rf"\b({'|'.join(WORDED)})(?:[ -](a|one|two|three|four|five|six|seven|eight|nine))?"
    r"(?= (?:hundred|thousand|hazaar|hazar|hajar|lakhs?|lacs?|crores?|gb|inch|stars?)\b)"
)
COMPOUND = re.compile(
    r"(?<![\w.])(?P<many>\d{1,3}) (?P<large>thousand|hazaar|hazar|hajar|lakhs?|lacs?|crores?) (?:and )?"
    r"(?P<few>\d{1,2}) (?P<small>hundred|thousand|hazaar|hazar|hajar|lakhs?|lacs?)\b"
)
SUBJECT = re.compile(
    r"\b(rat(?:ed|ings?)|stars?|review(?:s|ed)?|pric(?:e|ed|es|ing)|cost(?:s|ing)?|budget|ram|storage|battery|screen|"
    r"display|camera|refresh rate|number of reviews)"
    r"(?: ?(?:is|are|of|should|be|must|it|has|by|the|a|an|with|from|at|range|ranging|size|capacity|:|\(|,)){0,4} ?$"
)
SUBJECTS = {
    "rat": "rating", "sta": "rating", "rev": "reviews", "num": "reviews", "pri": "price", "cos": "price",
    "bud": "price", "ram": "ram", "sto": "storage", "bat": "mah", "scr": "inches", "dis": "inches", "cam": "mp",
    "ref": "hz",
}  # fmt: skip
LARGEST = {"inches": 120, "mp": 300, "hz": 500, "ram": 128, "storage": 4096, "mah": 30_000}
"""A figure without a unit beyond these is no such measure: "good camera under 20000" is about money."""

LOOK_BACK = 48
HIGHEST_RATING = 5
CHEAPEST_BARE_PRICE = 1000
YEARS = (1980, 2040)
RESOLUTIONS = {"2", "4", "5", "6", "8"}
