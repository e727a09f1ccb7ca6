"""A product's attributes as short readable facts ("8 GB RAM", "6.7-inch AMOLED display", "5G")."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from shopassist.models.catalog import ABSENT, Product
from shopassist.models.criteria import Criteria
from shopassist.models.words import words_of

MOST = 5
TERABYTE = 1000
KILOGRAM = 1000
LONGEST_FACT = 80

WORDINGS = {
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

UNITS = {
    "gb": "GB", "mb": "MB", "mah": "mAh", "hz": "Hz", "ghz": "GHz", "mhz": "MHz", "mp": "MP", "watts": "W", "w": "W",
    "volts": "V", "v": "V", "g": "g", "kg": "kg", "mm": "mm", "cm": "cm", "m": "m", "inches": "inches",
    "hours": "hours", "litres": "litres", "ml": "ml",
}  # fmt: skip
UNTOLD = frozenset(
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


def number(value: object) -> str:
    """A number without needless zeros."""
    plain = Decimal(str(value))
    return f"{plain.quantize(Decimal(1))}" if plain == plain.to_integral_value() else f"{plain.normalize():f}"


def figure(key: str, value: object) -> str:
    """One attribute in words; an empty text where it says nothing."""
    if value is None or value is False or str(value).strip().lower() in ABSENT:
        return ""
    if value is True:
        return _titled(key.replace("_", " "))
    shown = number(value) if isinstance(value, int | float | Decimal) else str(value).strip()
    if key == "storage_gb" and isinstance(value, int | float) and value >= TERABYTE:
        return f"{number(Decimal(str(value)) / TERABYTE)} TB storage"
    if key == "weight_g" and isinstance(value, int | float) and value >= KILOGRAM:
        return f"{number(Decimal(str(value)) / KILOGRAM)} kg"
    if key in WORDINGS:
        return _titled(WORDINGS[key].format(shown)) if key in {"type", "connection"} else WORDINGS[key].format(shown)
    return _generic(key, shown, isinstance(value, int | float))


def facts_of(product: Product, criteria: Criteria) -> list[str]:
    """Up to five facts: those that were asked for first, then those that matter most."""
    attributes = {key: value for key, value in product.attributes.items() if not UNTOLD.intersection(key.split("_"))}
    wanted = {word for feature in criteria.features for words in feature.alternatives() for word in words}
    wanted |= {word for term in criteria.terms for word in words_of(term)}
    limited = {bound.name for bound in criteria.bounds}
    known = list(WORDINGS)

    def place(key: str) -> tuple[bool, bool, int]:
        words = set(words_of(f"{key.replace('_', ' ')} {attributes[key]}"))
        return (key not in limited, not wanted & words, known.index(key) if key in known else len(known))

    facts = [_fact(attributes, key) for key in sorted(attributes, key=place)]
    told = list(dict.fromkeys(fact for fact in facts if fact and len(fact) <= LONGEST_FACT))[:MOST]
    return told or [sentence for sentence in [_first_sentence(product.description)] if sentence]


def _fact(attributes: Mapping[str, Any], key: str) -> str:
    display = attributes.get("display_type") or attributes.get("panel")
    if key == "screen_inches" and display:
        return f"{number(attributes[key])}-inch {display} display"
    if key in {"display_type", "panel"} and "screen_inches" in attributes:
        return ""
    return figure(key, attributes[key])


def _generic(key: str, shown: str, numeric: bool) -> str:
    name, _, unit = key.rpartition("_")
    if numeric and name and unit in UNITS:
        return f"{_titled(name.replace('_', ' '))}: {shown} {UNITS[unit]}"
    return f"{_titled(key.replace('_', ' ').strip())}: {shown}"


def _first_sentence(description: str | None) -> str:
    sentence = (description or "").strip().split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= LONGEST_FACT else f"{sentence[: LONGEST_FACT - 1].rstrip()}…"


def _titled(text: str) -> str:
    return text[:1].upper() + text[1:]
