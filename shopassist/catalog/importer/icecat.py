"""Map ICEcat attributes to canonical keys with units, and derive the category where it is certain."""

import re
from typing import Any

COLUMN_PREFIX = re.compile(r"attr_[ntb]_")
DIAGONAL_IN_TITLE = re.compile(r'\((\d{1,3}(?:\.\d+)?)"\)')
LAPTOP_TYPES = frozenset({"notebook", "chromebook", "netbook", "hybrid (2-in-1)", "mobile workstation"})
COMPUTER_TYPES = LAPTOP_TYPES | {"pc", "workstation", "all-in-one pc", "mini pc (<= 3l)"}
CATEGORY_BY_TYPE = {
    **dict.fromkeys(LAPTOP_TYPES, "laptops"),
    "headphones": "headphones",
    "headset": "headphones",
    "stereo portable speaker": "speakers",
    "mono portable speaker": "speakers",
    "tabletop router": "routers",
    "portable router": "routers",
    "kids digital camera": "cameras",
}
CATEGORY_BY_TITLE = (
    (re.compile(r"\bsmartwatch\b"), "smartwatches"),
    (re.compile(r"\bsmartphone\b"), "smartphones"),
    (re.compile(r"\b(?:computer|lcd|flat panel|widescreen lcd|touch screen) monitor\b"), "monitors"),
    (re.compile(r"\b(?:wireless|wired) router\b"), "routers"),
    (re.compile(r"\b(?:laser|inkjet|photo|label|dot matrix|large format) printer\b"), "printers"),
    (re.compile(r"\b(?:headphones|headset|headphone)\b"), "headphones"),
    (re.compile(r"\b(?:compact|slr|bridge|mirrorless|digital) camera\b"), "cameras"),
    (re.compile(r"\b(?:docking speaker|speaker set|multimedia speakers?|portable speaker)\b"), "speakers"),
    (re.compile(r"\bpower bank\b"), "power banks"),
    (re.compile(r"\b(?:external hard drive|internal hard drive|usb flash drive|memory card)\b"), "storage"),
    (re.compile(r"\bkeyboard (?:usb|ps/2|rf wireless|bluetooth)\b"), "keyboards"),
    (re.compile(r"\bmouse (?:usb|ps/2|rf wireless|bluetooth)\b"), "mice"),
    (re.compile(r"\b(?:lcd|plasma|flat|led|smart) tv\b|\btv \d+(?:\.\d+)? cm\b"), "televisions"),
    (re.compile(r"\b(?:portable game|game|gaming) console\b"), "gaming consoles"),
)
ACCESSORY_IN_TITLE = re.compile(
    r"\b(?:cables?|adapters?|cases?|covers?|bags?|sleeves?|backpacks?|stands?|mounts?|brackets?|holders?|docks?|docking"
    r"|docking station|cradles?|chargers?|batter(?:y|ies)|lamps?|lens|filters?|protectors?|locks?|readers?|enclosures?"
    r"|cabinet|shelf|trays?|drums?|toners?|cartridges?|ribbons?|memory module|printer memory|kit|pads?|rests?"
    r"|remote control|antenna|splitters?|extenders?|switch(?:es)?|converters?|spare part|server|warranty"
    r"|service|svc|care pack|pillow|paper|labels?|skin|arm|wire|outlets?|ups|for)\b"
)
NOT_AN_ACCESSORY = re.compile(r"\b(?:label printer|docking speaker|camera kit|without dock)\b")
CATEGORIES_WITH_SCREEN = frozenset(
    {"laptops", "smartphones", "tablets", "televisions", "monitors", "smartwatches", "cameras"}
)
CATEGORIES_WITH_CAMERA = frozenset({"cameras", "smartphones", "tablets"})
CAMERA_ATTRIBUTES = ("rear_camera_resolution_numeric", "megapixel", "total_megapixels")
MIN_SMARTPHONE_INCHES = 4.5


def normalise_attributes(facts: dict[str, Any], title: str) -> tuple[str | None, dict[str, Any]]:
    """The category, None when the facts leave a doubt, and the facts under the catalogue's names.

    `facts` have lost ICEcat's prefixes. Names of its own that were not understood stay.
    """
    kind = str(facts.get("product_type", "")).lower()
    category = _find_category(facts, kind, title.lower())
    known = {
        "ram_gb": _first_positive_number(facts, *_ram_attributes(kind, category)),
        "storage_gb": _first_positive_number(facts, *_storage_attributes(kind, category)),
        "screen_inches": _find_screen_inches(facts, title)
        if category in CATEGORIES_WITH_SCREEN or kind in COMPUTER_TYPES
        else None,
        "battery_mah": _first_positive_number(facts, "battery_capacity")
        if category in CATEGORIES_WITH_SCREEN | {"power banks"}
        else None,
        "weight_g": _first_positive_number(facts, "weight"),
        "main_camera_mp": _first_positive_number(facts, *CAMERA_ATTRIBUTES)
        if category in CATEGORIES_WITH_CAMERA
        else None,
        "refresh_rate_hz": _first_positive_number(facts, "maximum_refresh_rate")
        if category in CATEGORIES_WITH_SCREEN
        else None,
        "network": facts.get("mobile_network_generation"),
        "colour": facts.get("product_colour"),
        "resolution": facts.get("display_resolution") if category in CATEGORIES_WITH_SCREEN else None,
        "processor": _find_processor(facts),
        "operating_system": facts.get("operating_system_installed") or None,
        "wireless": _find_wireless(facts),
    }
    renamed = {"colour", "weight", "product_colour", "mobile_network_generation", "operating_system_installed"}
    rest = {name: value for name, value in facts.items() if name not in renamed}
    if "colour" in facts:
        rest["colour_printing"] = facts["colour"]
    return category, rest | {name: value for name, value in known.items() if value is not None}


def _find_category(facts: dict[str, Any], kind: str, title: str) -> str | None:
    if kind == "headphones" and ("in-ear" in str(facts.get("wearing_style", "")).lower() or "in-ear" in title):
        return "earbuds"
    if kind in CATEGORY_BY_TYPE:
        return CATEGORY_BY_TYPE[kind]
    if ACCESSORY_IN_TITLE.search(NOT_AN_ACCESSORY.sub("", title)):
        return None
    return _find_category_by_attributes(facts) or next(
        (category for noun, category in CATEGORY_BY_TITLE if noun.search(title)), None
    )


def _find_category_by_attributes(facts: dict[str, Any]) -> str | None:
    form = str(facts.get("form_factor", "")).lower()
    if form == "slate":
        return "tablets"
    if form == "bar" and (_first_positive_number(facts, "display_diagonal") or 0) >= MIN_SMARTPHONE_INCHES:
        return "smartphones"
    if form == "clamshell" and {"processor_family", "internal_memory"} <= facts.keys():
        return "laptops"
    return "printers" if any(name.startswith("print_speed_") for name in facts) else None


def _first_positive_number(facts: dict[str, Any], *names: str) -> float | None:
    numbers = (facts.get(name) for name in names)
    return next((n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool) and n > 0), None)


def _ram_attributes(kind: str, category: str | None) -> tuple[str, ...]:
    if kind in COMPUTER_TYPES or category == "laptops":
        return ("internal_memory",)
    phones = {"smartphones": ("ram_capacity",), "tablets": ("ram_capacity", "internal_memory")}
    return phones.get(category or "", ())


def _storage_attributes(kind: str, category: str | None) -> tuple[str, ...]:
    if kind in COMPUTER_TYPES or category == "laptops":
        return ("total_storage_capacity",)
    if category in {"smartphones", "tablets"}:
        return ("internal_storage_capacity",)
    return ("ssd_capacity", "hdd_capacity", "capacity") if category == "storage" else ()


def _find_screen_inches(facts: dict[str, Any], title: str) -> float | None:
    in_title = DIAGONAL_IN_TITLE.search(title)
    return _first_positive_number(facts, "display_diagonal") or (float(in_title[1]) if in_title else None)


def _find_processor(facts: dict[str, Any]) -> str | None:
    family, model = str(facts.get("processor_family") or ""), str(facts.get("processor_model") or "")
    return f"{family} {model}".strip() or None


def _find_wireless(facts: dict[str, Any]) -> bool | None:
    technology = str(facts.get("connectivity_technology", "")).lower()
    if "wireless" in technology or "rf wireless" in str(facts.get("device_interface", "")).lower():
        return True
    return False if technology == "wired" else None
