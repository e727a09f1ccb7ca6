"""ICEcat's facts under the catalogue's own names with units, and the category where the facts leave no doubt.

Units were checked against the titles of 19,406 products: `display_diagonal` is in inches (613 of 613), the weight of
the thing itself in grams, `internal_memory` in GB for computers and tablets (elsewhere it varies, so it is not read).
"""

import re
from typing import Any

PREFIX = re.compile(r"attr_[ntb]_")
DIAGONAL = re.compile(r'\((\d{1,3}(?:\.\d+)?)"\)')
LAPTOPS = frozenset({"notebook", "chromebook", "netbook", "hybrid (2-in-1)", "mobile workstation"})
COMPUTERS = LAPTOPS | {"pc", "workstation", "all-in-one pc", "mini pc (<= 3l)"}
OF_TYPE = {
    **dict.fromkeys(LAPTOPS, "laptops"),
    "headphones": "headphones",
    "headset": "headphones",
    "stereo portable speaker": "speakers",
    "mono portable speaker": "speakers",
    "tabletop router": "routers",
    "portable router": "routers",
    "kids digital camera": "cameras",
}
OF_NOUN = (
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
ACCESSORY = re.compile(
    r"\b(?:cables?|adapters?|cases?|covers?|bags?|sleeves?|backpacks?|stands?|mounts?|brackets?|holders?|docks?|docking"
    r"|docking station|cradles?|chargers?|batter(?:y|ies)|lamps?|lens|filters?|protectors?|locks?|readers?|enclosures?"
    r"|cabinet|shelf|trays?|drums?|toners?|cartridges?|ribbons?|memory module|printer memory|kit|pads?|rests?"
    r"|remote control|antenna|splitters?|extenders?|switch(?:es)?|converters?|spare part|server|warranty"
    r"|service|svc|care pack|pillow|paper|labels?|skin|arm|wire|outlets?|ups|for)\b"
)
NO_ACCESSORY_THOUGH = re.compile(r"\b(?:label printer|docking speaker|camera kit|without dock)\b")
SCREENS = frozenset({"laptops", "smartphones", "tablets", "televisions", "monitors", "smartwatches", "cameras"})
CAMERAS = frozenset({"cameras", "smartphones", "tablets"})
CAMERA_NAMES = ("rear_camera_resolution_numeric", "megapixel", "total_megapixels")
SMALLEST_SMARTPHONE_INCHES = 4.5


def canonical(facts: dict[str, Any], title: str) -> tuple[str | None, dict[str, Any]]:
    """The category, None when the facts leave a doubt, and the facts under the catalogue's names.

    `facts` have lost ICEcat's prefixes. Names of its own that were not understood stay.
    """
    kind = str(facts.get("product_type", "")).lower()
    category = _category(facts, kind, title.lower())
    known = {
        "ram_gb": _number(facts, *_ram_names(kind, category)),
        "storage_gb": _number(facts, *_storage_names(kind, category)),
        "screen_inches": _screen(facts, title) if category in SCREENS or kind in COMPUTERS else None,
        "battery_mah": _number(facts, "battery_capacity") if category in SCREENS | {"power banks"} else None,
        "weight_g": _number(facts, "weight"),
        "main_camera_mp": _number(facts, *CAMERA_NAMES) if category in CAMERAS else None,
        "refresh_rate_hz": _number(facts, "maximum_refresh_rate") if category in SCREENS else None,
        "network": facts.get("mobile_network_generation"),
        "colour": facts.get("product_colour"),
        "resolution": facts.get("display_resolution") if category in SCREENS else None,
        "processor": _processor(facts),
        "operating_system": facts.get("operating_system_installed") or None,
        "wireless": _wireless(facts),
    }
    renamed = {"colour", "weight", "product_colour", "mobile_network_generation", "operating_system_installed"}
    rest = {name: value for name, value in facts.items() if name not in renamed}
    if "colour" in facts:
        rest["colour_printing"] = facts["colour"]
    return category, rest | {name: value for name, value in known.items() if value is not None}


def _category(facts: dict[str, Any], kind: str, title: str) -> str | None:
    if kind == "headphones" and ("in-ear" in str(facts.get("wearing_style", "")).lower() or "in-ear" in title):
        return "earbuds"
    if kind in OF_TYPE:
        return OF_TYPE[kind]
    if ACCESSORY.search(NO_ACCESSORY_THOUGH.sub("", title)):
        return None
    return _category_by_facts(facts) or next((category for noun, category in OF_NOUN if noun.search(title)), None)


def _category_by_facts(facts: dict[str, Any]) -> str | None:
    form = str(facts.get("form_factor", "")).lower()
    if form == "slate":
        return "tablets"
    if form == "bar" and (_number(facts, "display_diagonal") or 0) >= SMALLEST_SMARTPHONE_INCHES:
        return "smartphones"
    if form == "clamshell" and {"processor_family", "internal_memory"} <= facts.keys():
        return "laptops"
    return "printers" if any(name.startswith("print_speed_") for name in facts) else None


def _number(facts: dict[str, Any], *names: str) -> float | None:
    numbers = (facts.get(name) for name in names)
    return next((n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool) and n > 0), None)


def _ram_names(kind: str, category: str | None) -> tuple[str, ...]:
    if kind in COMPUTERS or category == "laptops":
        return ("internal_memory",)
    phones = {"smartphones": ("ram_capacity",), "tablets": ("ram_capacity", "internal_memory")}
    return phones.get(category or "", ())


def _storage_names(kind: str, category: str | None) -> tuple[str, ...]:
    if kind in COMPUTERS or category == "laptops":
        return ("total_storage_capacity",)
    if category in {"smartphones", "tablets"}:
        return ("internal_storage_capacity",)
    return ("ssd_capacity", "hdd_capacity", "capacity") if category == "storage" else ()


def _screen(facts: dict[str, Any], title: str) -> float | None:
    in_title = DIAGONAL.search(title)
    return _number(facts, "display_diagonal") or (float(in_title[1]) if in_title else None)


def _processor(facts: dict[str, Any]) -> str | None:
    family, model = str(facts.get("processor_family") or ""), str(facts.get("processor_model") or "")
    return f"{family} {model}".strip() or None


def _wireless(facts: dict[str, Any]) -> bool | None:
    technology = str(facts.get("connectivity_technology", "")).lower()
    if "wireless" in technology or "rf wireless" in str(facts.get("device_interface", "")).lower():
        return True
    return False if technology == "wired" else None
