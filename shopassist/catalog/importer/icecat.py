"""ICEcat's attributes under the catalogue's keys and units, and a category where it is certain."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from shopassist.catalog.attributes import ATTRIBUTES, COMPUTERS

ICECAT_PREFIX = re.compile(r"attr_[ntb]_")
LAPTOP_TYPES = frozenset({"notebook", "chromebook", "netbook", "hybrid (2-in-1)", "mobile workstation"})
COMPUTER_TYPES = LAPTOP_TYPES | {"pc", "workstation", "all-in-one pc", "mini pc (<= 3l)"}
CATEGORY_BY_TYPE = {
    **dict.fromkeys(LAPTOP_TYPES, "laptops"),
    **dict.fromkeys(("headphones", "headset"), "headphones"),
    **dict.fromkeys(("stereo portable speaker", "mono portable speaker"), "speakers"),
    **dict.fromkeys(("tabletop router", "portable router"), "routers"),
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
MIN_SMARTPHONE_INCHES = 4.5
REPLACED_COLUMNS = frozenset(
    column for row in ATTRIBUTES for source in row.icecat if source.replaced for column in source.columns.split()
)


def _read_icecat(read: str, values: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """Return a value from some columns, in the way that `IcecatSource.read` names."""
    found = [values[column] for column in columns if values.get(column) is not None]
    if read == "text":
        return " ".join(str(value) for value in found if value) or None
    if read == "wireless":
        connectivity, interface = (str(values.get(column, "")).lower() for column in columns)
        is_wireless = "wireless" in connectivity or "rf wireless" in interface
        return is_wireless or (False if connectivity == "wired" else None)
    if read == "number":
        found = [n for n in found if isinstance(n, int | float) and not isinstance(n, bool) and n > 0]
    return next(iter(found), None)


def normalise_icecat_attributes(values: dict[str, Any], title: str) -> tuple[str | None, dict[str, Any]]:
    """Return the category, None if it is uncertain, and the attributes under the catalogue's keys.

    `values` are the columns of a row without ICEcat's prefixes. Columns that were not understood stay.
    """
    product_type = str(values.get("product_type", "")).lower()
    category = _find_category(values, product_type, title.lower())
    groups = {category, *COMPUTERS} if product_type in COMPUTER_TYPES or category == "laptops" else {category}
    attributes = {key: value for key, value in values.items() if key not in REPLACED_COLUMNS}
    for row in ATTRIBUTES:
        source = next((source for source in row.icecat if not source.groups or groups & source.groups), None)
        value = _read_icecat(source.read, values, source.columns.split()) if source else None
        if value is None and source and source.in_title and (in_title := source.in_title.search(title)):
            value = float(in_title[1])
        if value is not None:
            attributes[row.key] = value
    return category, attributes


def _find_category(values: dict[str, Any], product_type: str, title: str) -> str | None:
    if product_type == "headphones" and ("in-ear" in str(values.get("wearing_style", "")).lower() or "in-ear" in title):
        return "earbuds"
    if product_type in CATEGORY_BY_TYPE:
        return CATEGORY_BY_TYPE[product_type]
    if ACCESSORY_IN_TITLE.search(NOT_AN_ACCESSORY.sub("", title)):
        return None
    return _find_category_by_attributes(values) or next(
        (category for noun, category in CATEGORY_BY_TITLE if noun.search(title)), None
    )


def _find_category_by_attributes(values: dict[str, Any]) -> str | None:
    form = str(values.get("form_factor", "")).lower()
    if form == "slate":
        return "tablets"
    if form == "bar" and (_read_icecat("number", values, ("display_diagonal",)) or 0) >= MIN_SMARTPHONE_INCHES:
        return "smartphones"
    if form == "clamshell" and {"processor_family", "internal_memory"} <= values.keys():
        return "laptops"
    return "printers" if any(name.startswith("print_speed_") for name in values) else None
