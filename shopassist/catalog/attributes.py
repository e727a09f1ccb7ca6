"""Tables of product attributes: units, wordings, comparisons, follow-up phrases and limits."""

import re
from dataclasses import dataclass

MAX_BARE_RAM_GB = 24
"""A capacity of a phone or a laptop without another word is memory up to here, storage above."""

ATTRIBUTE_BY_SUBJECT = {
    "ram": "ram_gb", "storage": "storage_gb", "inches": "screen_inches", "mah": "battery_mah", "hz": "refresh_rate_hz",
    "mp": "main_camera_mp", "front_mp": "front_camera_mp", "watts": "output_watts", "hours": "battery_hours",
    "litres": "capacity_litres", "grams": "weight_g", "rating": "rating", "reviews": "rating_count",
}  # fmt: skip
ATTRIBUTE_BY_SUBJECT_AND_KIND = {
    ("mah", "power banks"): "capacity_mah",
    ("watts", "smartphones"): "charging_watts",
    ("watts", "tablets"): "charging_watts",
    ("watts", "power banks"): "charging_watts",
    ("watts", "air fryers"): "power_watts",
}


def find_attribute(subject: str, kinds: tuple[str, ...]) -> str | None:
    """The attribute that a quantity of this subject limits in products of these kinds."""
    special = (ATTRIBUTE_BY_SUBJECT_AND_KIND.get((subject, kind)) for kind in kinds)
    return next((name for name in special if name), None) or ATTRIBUTE_BY_SUBJECT.get(subject)


def classify_capacity(gigabytes: int, kinds: tuple[str, ...]) -> str:
    """Whether a bare capacity means `ram` or `storage`."""
    return "storage" if "storage" in kinds or "gaming consoles" in kinds or gigabytes > MAX_BARE_RAM_GB else "ram"


_STORAGE_WORDS = r"(?:storage|ssd|nvme|rom|hdd|emmc|internal|hard[ -]?(?:disk|drive)|memory card|pen[ -]?drive)"
"""What follows a capacity of storage; it stays in the text, since it may be what is wanted."""

_OTHER_UNITS = (
    r"(?:mm|ml|m|ft|feet|met(?:re|er)s?|%|percent|years?|yrs?|months?|weeks?|days?|min|minutes?|ports?|pcs|pieces?|"
    r"packs?|cores?|dpi|rpm|fps|nits|degrees?|sim|sims|p|mbps|gbps|in[- ]1|th|st|nd|rd|gen)(?![a-z])"
)
UNIT_PATTERNS = (
    ("ram", r"gb ?\+?(?: of)?(?: (?:ddr\w{1,3}|lpddr\w{1,3}|unified))? ?(?:ram|memory(?! card))"),
    ("graphics", r"gb(?: of)? (?:graphics?|gpu|vram|video|nvidia|rtx|gtx)(?![a-z])"),
    ("storage_tb", r"tb(?: of)?(?![a-z])"),
    ("storage", rf"gb(?: of)?(?= ?(?:internal |nvme |sata |portable |external ){{0,2}}{_STORAGE_WORDS}(?![a-z]))"),
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
    ("other", _OTHER_UNITS),
)  # fmt: skip

SUBJECT_BY_PREFIX = {
    "rat": "rating", "sta": "rating", "rev": "reviews", "num": "reviews", "pri": "price", "cos": "price",
    "bud": "price", "ram": "ram", "sto": "storage", "bat": "mah", "scr": "inches", "dis": "inches", "cam": "mp",
    "ref": "hz",
}  # fmt: skip
MAX_BARE_VALUES = {"inches": 120, "mp": 300, "hz": 500, "ram": 128, "storage": 4096, "mah": 30_000}
"""A figure without a unit beyond these is no such measure: "good camera under 20000" is about money."""

ATTRIBUTE_WORDINGS = {
    "network": "{}",
    "ram_gb": "{} GB RAM",
    "storage_gb": "{} GB storage",
    "battery_mah": "{} mAh battery",
    "capacity_mah": "{} mAh",
    "main_camera_mp": "{} MP main camera",
    "screen_inches": "{}-inch display",
    "processor": "{}",
    "refresh_rate_hz": "{} Hz refresh rate",
    "charging_watts": "{} W charging",
    "battery_hours": "{} hours of battery life",
    "output_watts": "{} W sound",
    "power_watts": "{} W",
    "capacity_litres": "{} litres",
    "resolution": "{} pixels",
    "water_resistance": "{} water resistance",
    "graphics": "{}",
    "type": "{}",
    "connection": "{}",
    "bluetooth": "Bluetooth {}",
    "wi_fi": "{}",
    "front_camera_mp": "{} MP front camera",
    "operating_system": "{}",
    "weight_g": "{} g",
    "read_speed_mb_s": "{} MB/s read speed",
}
"""Attributes in the order in which shoppers care about them."""

UNIT_SUFFIXES = {
    "gb": "GB", "mb": "MB", "mah": "mAh", "hz": "Hz", "ghz": "GHz", "mhz": "MHz", "mp": "MP", "watts": "W", "w": "W",
    "volts": "V", "v": "V", "g": "g", "kg": "kg", "mm": "mm", "cm": "cm", "m": "m", "inches": "inches",
    "hours": "hours", "litres": "litres", "ml": "ml",
}  # fmt: skip
HIDDEN_ATTRIBUTE_WORDS = frozenset(
    [
        "package",
        "packaging",
        "pallet",
        "shipping",
        "master",
        "outer",
        "harmonized",
        "code",
        "certification",
        "temperature",
        "humidity",
        "ark",
        "id",
        "last",
        "change",
        "quantity",
        "layer",
        "sustainability",
        "ean",
    ]
)
"""Words of attributes that concern dealers rather than shoppers."""

BOUND_UNITS = {
    "ram_gb": "GB RAM", "storage_gb": "GB storage", "screen_inches": "inches", "battery_mah": "mAh",
    "capacity_mah": "mAh", "refresh_rate_hz": "Hz", "main_camera_mp": "MP camera", "front_camera_mp": "MP front camera",
    "output_watts": "W", "charging_watts": "W", "power_watts": "W", "battery_hours": "hours",
    "capacity_litres": "litres", "weight_g": "grams", "rating": "stars", "rating_count": "reviews",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ComparedAttribute:
    """A figure that products are compared by: how the best is called, what a lack of it is called."""

    name: str
    best: str
    lack: str
    sign: int = 1


COMPARED_ATTRIBUTES = (
    ComparedAttribute("ram_gb", "Most RAM", "{} GB less RAM"),
    ComparedAttribute("storage_gb", "Most storage", "{} GB less storage"),
    ComparedAttribute("battery_mah", "Largest battery", "{} mAh less battery"),
    ComparedAttribute("capacity_mah", "Largest capacity", "{} mAh less capacity"),
    ComparedAttribute("battery_hours", "Longest battery life", "{} hours less battery life"),
    ComparedAttribute("main_camera_mp", "Highest camera resolution", "{} MP less camera resolution"),
    ComparedAttribute("refresh_rate_hz", "Highest refresh rate", "{} Hz lower refresh rate"),
    ComparedAttribute("charging_watts", "Fastest charging", "{} W slower charging"),
    ComparedAttribute("output_watts", "Most powerful sound", "{} W less sound"),
    ComparedAttribute("capacity_litres", "Largest capacity", "{} litres less capacity"),
    ComparedAttribute("read_speed_mb_s", "Fastest reading", "{} MB/s slower reading"),
    ComparedAttribute("weight_g", "Lightest", "{} g heavier", -1),
    ComparedAttribute("rating", "Best rated", "{} stars lower rating"),
)

COMPARATIVE_PATTERNS = (
    (re.compile(r"\b(?:bigger|larger|better|longer|more)\s(?:capacity )?battery\b"),
     ("battery_mah", "battery_hours", "capacity_mah"), 1),
    (re.compile(r"\b(?:better|higher)\s(?:resolution )?camera\b"), ("main_camera_mp",), 1),
    (re.compile(r"\bmore (?:ram|memory)\b"), ("ram_gb",), 1),
    (re.compile(r"\b(?:more|bigger|larger) storage\b"), ("storage_gb",), 1),
    (re.compile(r"\b(?:bigger|larger) (?:screen|display|one)s?\b|^bigger$"), ("screen_inches",), 1),
    (re.compile(r"\bsmaller (?:screen|display|one)s?\b|^smaller$"), ("screen_inches",), -1),
    (re.compile(r"\blighter\b"), ("weight_g",), -1),
    (re.compile(r"\bfaster charging\b"), ("charging_watts",), 1),
)  # fmt: skip

HIGHER_IS_BETTER = (
    "ram_gb", "storage_gb", "battery_mah", "capacity_mah", "main_camera_mp", "refresh_rate_hz", "charging_watts",
    "battery_hours", "output_watts",
)  # fmt: skip

ATTRIBUTE_PREFERENCES: dict[str, tuple[tuple[str, int], ...]] = {
    "camera": (("main_camera_mp", 1),),
    "selfie": (("front_camera_mp", 1),),
    "photo": (("main_camera_mp", 1),),
    "photography": (("main_camera_mp", 1),),
    "battery": (("battery_mah", 1), ("battery_hours", 1), ("capacity_mah", 1)),
    "light": (("weight_g", -1),),
    "lightweight": (("weight_g", -1),),
    "fast": (("ram_gb", 1),),
    "powerful": (("ram_gb", 1), ("output_watts", 1)),
    "gaming": (("ram_gb", 1), ("refresh_rate_hz", 1)),
    "performance": (("ram_gb", 1),),
    "memory": (("ram_gb", 1),),
    "storage": (("storage_gb", 1),),
    "display": (("screen_inches", 1),),
    "screen": (("screen_inches", 1),),
    "big": (("screen_inches", 1),),
    "small": (("screen_inches", -1),),
    "compact": (("screen_inches", -1), ("weight_g", -1)),
    "loud": (("output_watts", 1),),
}
"""What a wish means in figures: attributes, and whether more (1) or less (-1) of them is better."""
