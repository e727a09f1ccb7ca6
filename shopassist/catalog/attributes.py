"""The table of product attributes: how each is read, limited, compared, ranked, imported and described.

A new attribute needs one row here and one example in its test.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

Limits = tuple[Decimal | None, Decimal | None]
"""Minimum and maximum."""

LARGE_SCREEN_INCHES = 20
LARGE_SCREEN_TOLERANCE, SMALL_SCREEN_TOLERANCE, SCREEN_CLASS_TOLERANCE = map(Decimal, ("0.5", "0.15", "0.65"))


def at_least(value: Decimal) -> Limits:
    """Read a number without a comparison as a minimum."""
    return value, None


def at_most(value: Decimal) -> Limits:
    """Read a number without a comparison as a maximum."""
    return None, value


def near_screen_size(value: Decimal) -> Limits:
    """Read a number without a comparison as a screen size; "6 inch" is a class up to 6.65."""
    if value >= LARGE_SCREEN_INCHES:
        return value - LARGE_SCREEN_TOLERANCE, value + LARGE_SCREEN_TOLERANCE
    whole = value == value.to_integral_value()
    return value - SMALL_SCREEN_TOLERANCE, value + (SCREEN_CLASS_TOLERANCE if whole else SMALL_SCREEN_TOLERANCE)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit behind a number in a question, a regular expression that may end in a word of context.

    `qualified` units are tried before the others, because others match the beginning of what they match. An amount is
    multiplied by `factor` to be in the unit `base`.
    """

    name: str
    pattern: str
    qualified: bool = False
    factor: Decimal = Decimal(1)
    base: str = ""


class Comparison(NamedTuple):
    """How products are compared by an attribute; comparisons are listed by `rank`.

    `drawback` has a place for the difference; `fact` shows the value if the wording of the attribute does not.
    """

    rank: int
    advantage: str
    drawback: str
    fact: str = ""


class FollowUp(NamedTuple):
    """A phrase (a regular expression) that asks for more (`direction` 1) or less (-1) than was shown.

    Phrases are applied by `rank`. Of the attributes that share one, the first by rank that a shown product has counts.
    """

    pattern: str
    direction: int
    rank: int


class FeatureWords(NamedTuple):
    """The words for a yes/no feature: its name, words of shoppers, more words of catalogues (`|` separates)."""

    name: str
    asked: str
    stated: str = ""


class FastFrom(NamedTuple):
    """In products of these kinds the feature `feature` means at least `minimum` of the attribute."""

    feature: str
    minimum: int
    kinds: frozenset[str]


class IcecatSource(NamedTuple):
    """The ICEcat columns that hold an attribute in products of these groups (all products if empty).

    `read` is "number" or "value" (the first one), "text" (all of them), or "wireless". Without a value in the columns,
    `in_title` finds a number in the title. Columns are removed if `replaced`, else they stay beside the attribute.
    """

    columns: str
    groups: frozenset[str] = frozenset()
    read: str = "number"
    replaced: bool = False
    in_title: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Attribute:
    """Everything about one attribute of products.

    Answers: `fact` is its wording, `large` a threshold, which also divides the value, and the wording from there on.
    `qualified_fact` also has a place for the first of the attributes `qualifiers`. `limit` is the unit of limits in
    words; only attributes with one can be limited. `unknown` says that a product lacks the value. `column`: it is a
    column of products. `ranked`: more is better. `direction` is -1 if less is the advantage in a comparison.

    Questions: `units` behind a number; `kinds` of products in which a unit means this attribute among those that share
    it; in other kinds it does so if `in_other_kinds`, up to `shared_max`. `subject` is the unit that a number without
    one has behind the words `subject_pattern`: at most `max_bare`, and never a maximum if `bare_minimum_only`. `filler`
    is its word between comparison and number; `words` repeat what the number beside them is about. `bare` gives the
    limits of a number without comparison. A value above `excess` has the other unit that `excess` names. `preferences`
    are wishes for more, `preferences_less` for less of it.
    """

    key: str
    fact: str = ""
    limit: str = ""
    column: bool = False
    unknown: str = ""
    capitalised: bool = False
    large: tuple[int, str] | None = None
    qualifiers: tuple[str, ...] = ()
    qualified_fact: str = ""
    units: tuple[Unit, ...] = ()
    kinds: frozenset[str] = frozenset()
    in_other_kinds: bool = True
    shared_max: int | None = None
    subject: str = ""
    subject_pattern: str = ""
    max_bare: int | None = None
    bare_minimum_only: bool = False
    filler: str = ""
    words: str = ""
    bare: Callable[[Decimal], Limits] = at_least
    excess: tuple[int, str] | None = None
    comparison: Comparison | None = None
    direction: int = 1
    ranked: bool = False
    preferences: str = ""
    preferences_less: str = ""
    follow_ups: tuple[FollowUp, ...] = ()
    feature: FeatureWords | None = None
    fast: FastFrom | None = None
    icecat: tuple[IcecatSource, ...] = ()


PHONES = frozenset({"smartphones", "tablets"})
WITH_CAMERA = PHONES | {"cameras"}
WITH_SCREEN = WITH_CAMERA | {"laptops", "televisions", "monitors", "smartwatches"}
COMPUTERS = frozenset({"computers"})
"""Laptops, desktop computers and workstations; a group of ICEcat rows, no category."""

GB = Unit("gb", r"(?:gb|gigs?|gigabytes?)(?![a-z])")
DIAGONAL_IN_TITLE = re.compile(r'\((\d{1,3}(?:\.\d+)?)"\)')
MAH = Unit("mah", r"(?:mah|milliamp[ -]hours?)(?![a-z])")
WATTS = Unit("watts", r"(?:w|watts?)(?![a-z])")
BIGGER_BATTERY = r"\b(?:bigger|larger|better|longer|more)\s(?:capacity )?battery\b"
# Words behind a capacity of storage. They stay in the text, because they may name the product.
_STORAGE = r"(?:storage|ssd|nvme|rom|hdd|emmc|internal|hard[ -]?(?:disk|drive)|memory card|pen[ -]?drive)"

ATTRIBUTES = (
    Attribute("network", "{}", icecat=(IcecatSource("mobile_network_generation", read="value", replaced=True),)),
    Attribute("ram_gb", "{} GB RAM", "GB RAM",
        units=(
            Unit("ram", r"gb ?\+?(?: of)?(?: (?:ddr\w{1,3}|lpddr\w{1,3}|unified))? ?(?:ram|memory(?! card))",
                 qualified=True),
            GB,
        ),
        shared_max=24, subject="ram", subject_pattern="ram", max_bare=128, filler="ram", words="ram memory",
        comparison=Comparison(1, "Most RAM", "{} GB less RAM"), ranked=True,
        preferences="fast powerful gaming performance memory",
        follow_ups=(FollowUp(r"\bmore (?:ram|memory)\b", 1, rank=5),),
        icecat=(
            IcecatSource("internal_memory", COMPUTERS),
            IcecatSource("ram_capacity", frozenset({"smartphones"})),
            IcecatSource("ram_capacity internal_memory", frozenset({"tablets"})),
        ),
    ),
    Attribute("storage_gb", "{} GB storage", "GB storage", large=(1000, "{} TB storage"),
        units=(
            Unit("storage_tb", r"tb(?: of)?(?![a-z])", qualified=True, factor=Decimal(1000), base="storage"),
            Unit("storage", rf"gb(?: of)?(?= ?(?:internal |nvme |sata |portable |external ){{0,2}}{_STORAGE}(?![a-z]))",
                 qualified=True),
            GB,
        ),
        kinds=frozenset({"storage", "gaming consoles"}), subject="storage", subject_pattern="storage", max_bare=4096,
        filler="storage", words="rom storage capacity internal",
        comparison=Comparison(2, "Most storage", "{} GB less storage"), ranked=True, preferences="storage",
        follow_ups=(FollowUp(r"\b(?:more|bigger|larger) storage\b", 1, rank=6),),
        icecat=(
            IcecatSource("total_storage_capacity", COMPUTERS),
            IcecatSource("internal_storage_capacity", PHONES),
            IcecatSource("ssd_capacity hdd_capacity capacity", frozenset({"storage"})),
        ),
    ),
    Attribute("battery_mah", "{} mAh battery", "mAh", units=(MAH,), subject="mah", subject_pattern="battery",
        max_bare=30_000, bare_minimum_only=True, filler="battery", words="battery",
        comparison=Comparison(3, "Largest battery", "{} mAh less battery"), ranked=True, preferences="battery",
        follow_ups=(FollowUp(BIGGER_BATTERY, 1, rank=1),),
        icecat=(IcecatSource("battery_capacity", WITH_SCREEN | {"power banks"}),),
    ),
    Attribute("capacity_mah", "{} mAh", "mAh", units=(MAH,), kinds=frozenset({"power banks"}), in_other_kinds=False,
        comparison=Comparison(4, "Largest capacity", "{} mAh less capacity"), ranked=True, preferences="battery",
        follow_ups=(FollowUp(BIGGER_BATTERY, 1, rank=3),),
    ),
    Attribute("main_camera_mp", "{} MP main camera", "MP camera",
        units=(Unit("mp", r"(?:mp|megapixels?)(?: (?:main |rear |back |primary )?camera)?(?![a-z])"),),
        subject="mp", subject_pattern="camera", max_bare=300, words="camera",
        comparison=Comparison(6, "Highest camera resolution", "{} MP less camera resolution"), ranked=True,
        preferences="camera photo photography",
        follow_ups=(FollowUp(r"\b(?:better|higher)\s(?:resolution )?camera\b", 1, rank=4),),
        icecat=(IcecatSource("rear_camera_resolution_numeric megapixel total_megapixels", WITH_CAMERA),),
    ),
    Attribute("screen_inches", "{}-inch display", "inches", qualifiers=("display_type", "panel"),
        qualified_fact="{}-inch {} display",
        units=(
            Unit("inches", r"(?:inch(?:es)?|in(?=[ -](?:screen|display|tv|monitor|laptop|tablet))|''|\"|”|″)(?![a-z])"),
            Unit("cm", r"(?:cm|cms|centimet(?:re|er)s?)(?![a-z])", factor=Decimal("0.3937"), base="inches"),
        ),
        subject="inches", subject_pattern="screen|display", max_bare=120, words="display screen", bare=near_screen_size,
        preferences="display screen big", preferences_less="small compact",
        follow_ups=(
            FollowUp(r"\b(?:bigger|larger) (?:screen|display|one)s?\b|^bigger$", 1, rank=7),
            FollowUp(r"\bsmaller (?:screen|display|one)s?\b|^smaller$", -1, rank=8),
        ),
        icecat=(IcecatSource("display_diagonal", WITH_SCREEN | COMPUTERS, in_title=DIAGONAL_IN_TITLE),),
    ),
    Attribute("processor", "{}", icecat=(IcecatSource("processor_family processor_model", read="text"),)),
    Attribute("refresh_rate_hz", "{} Hz refresh rate", "Hz", units=(Unit("hz", r"(?:hz|hertz)(?![a-z])"),),
        subject="hz", subject_pattern="refresh rate", max_bare=500, words="refresh rate",
        comparison=Comparison(7, "Highest refresh rate", "{} Hz lower refresh rate"), ranked=True,
        preferences="gaming", icecat=(IcecatSource("maximum_refresh_rate", WITH_SCREEN),),
    ),
    Attribute(
        "charging_watts", "{} W charging", "W", units=(WATTS,), kinds=PHONES | {"power banks"}, in_other_kinds=False,
        words="charging", comparison=Comparison(8, "Fastest charging", "{} W slower charging"), ranked=True,
        follow_ups=(FollowUp(r"\bfaster charging\b", 1, rank=10),), fast=FastFrom("fast charging", 18, PHONES),
    ),
    Attribute(
        "battery_hours", "{} hours of battery life", "hours", units=(Unit("hours", r"(?:h|hrs?|hours?)(?![a-z])"),),
        comparison=Comparison(5, "Longest battery life", "{} hours less battery life"), ranked=True,
        preferences="battery", follow_ups=(FollowUp(BIGGER_BATTERY, 1, rank=2),),
    ),
    Attribute("output_watts", "{} W sound", "W", units=(WATTS,),
        comparison=Comparison(9, "Most powerful sound", "{} W less sound"), ranked=True, preferences="powerful loud",
    ),
    Attribute("power_watts", "{} W", "W", units=(WATTS,), kinds=frozenset({"air fryers"}), in_other_kinds=False),
    Attribute("capacity_litres", "{} litres", "litres", units=(Unit("litres", r"(?:litres?|liters?|ltr)(?![a-z])"),),
        comparison=Comparison(10, "Largest capacity", "{} litres less capacity"),
    ),
    Attribute("resolution", "{} pixels", icecat=(IcecatSource("display_resolution", WITH_SCREEN, "value"),)),
    Attribute("water_resistance", "{} water resistance"),
    Attribute(
        "graphics", "{}",  # its unit has no `limit`: it is recognised only to tell graphics memory from other memory
        units=(Unit("graphics", r"gb(?: of)? (?:graphics?|gpu|vram|video|nvidia|rtx|gtx)(?![a-z])", qualified=True),),
    ),
    Attribute("type", "{}", capitalised=True),
    Attribute("connection", "{}", capitalised=True),
    Attribute("bluetooth", "Bluetooth {}"),
    Attribute("wi_fi", "{}"),
    Attribute("front_camera_mp", "{} MP front camera", "MP front camera",
        units=(Unit("front_mp", r"(?:mp|megapixels?) (?:front|selfie)(?: camera)?(?![a-z])", qualified=True),),
        preferences="selfie",
    ),
    Attribute("operating_system", "{}",
        icecat=(IcecatSource("operating_system_installed", read="text", replaced=True),),
    ),
    Attribute("weight_g", "{} g", "grams", large=(1000, "{} kg"),
        units=(
            Unit("kilograms", r"(?:kg|kgs|kilos?|kilograms?)(?![a-z])", factor=Decimal(1000), base="grams"),
            Unit("grams", r"(?:g|gms?|grams?)(?![a-z])"),
        ),
        bare=at_most, comparison=Comparison(12, "Lightest", "{} g heavier"), direction=-1,
        preferences_less="light lightweight compact", follow_ups=(FollowUp(r"\blighter\b", -1, rank=9),),
        icecat=(IcecatSource("weight", replaced=True),),
    ),
    Attribute("read_speed_mb_s", "{} MB/s read speed",
        comparison=Comparison(11, "Fastest reading", "{} MB/s slower reading"),
    ),
    Attribute("rating", limit="stars", column=True, unknown="rating is not known",
        units=(
            Unit("rating", r"(?:out of 5|/ ?5|stars?(?: (?:customer )?(?:ratings?|reviews?))?|rat(?:ing|ed))(?![a-z])"),
        ),
        subject="rating", subject_pattern=r"rat(?:ed|ings?)|stars?", filler="rating", excess=(5, "reviews"),
        comparison=Comparison(13, "Best rated", "{} stars lower rating", fact="{} of 5"),
    ),
    Attribute("rating_count", limit="reviews", column=True, unknown="number of reviews is not known",
        units=(
            Unit("reviews",
                 r"(?:(?:customer|user|verified|buyer) ){0,2}(?:reviews?|reviewers|ratings|buyers|customers|people)"),
        ),
        subject="reviews", subject_pattern=r"review(?:s|ed)?|number of reviews",
    ),
    Attribute("colour_printing", icecat=(IcecatSource("colour", read="value", replaced=True),)),
    Attribute("colour", icecat=(IcecatSource("product_colour", read="value", replaced=True),)),
    Attribute("wireless_charging", feature=FeatureWords(
        "wireless charging", "wireless charging|qi charging", "qi wireless")),
    Attribute("wireless", feature=FeatureWords("wireless", "wireless|cordless", "bluetooth"),
        icecat=(IcecatSource("connectivity_technology device_interface", read="wireless"),)),
    Attribute("noise_cancelling", feature=FeatureWords("noise cancelling",
        "noise cancelling|noise canceling|noise cancellation|noise reduction|active noise cancelling|anc")),
    Attribute("headphone_jack", feature=FeatureWords("headphone jack",
        "headphone jack|audio jack|3.5mm jack|3.5 mm jack|3.5mm headphone jack|3.5mm audio jack|aux port")),
    Attribute("nfc", feature=FeatureWords("NFC", "nfc")),
    Attribute("gps", feature=FeatureWords("GPS", "gps")),
    Attribute("microsd", feature=FeatureWords(
        "microSD", "microsd|micro sd|memory card slot|sd card slot|expandable storage|expandable memory")),
    Attribute("fast_charging", feature=FeatureWords(
        "fast charging", "fast charging|fast charge|quick charge|quick charging|rapid charging")),
    Attribute("touchscreen", feature=FeatureWords("touchscreen", "touchscreen|touch screen|touch-screen")),
    Attribute("smart_tv", feature=FeatureWords(
        "smart TV", "smart tv|smart television", "android tv|google tv|fire tv|webos|tizen")),
)  # fmt: skip
"""Facts about a product are listed in this order."""

OTHER_UNITS = Unit(
    "other",
    r"(?:mm|ml|m|ft|feet|met(?:re|er)s?|%|percent|years?|yrs?|months?|weeks?|days?|min|minutes?|ports?|pcs|pieces?|"
    r"packs?|cores?|dpi|rpm|fps|nits|degrees?|sim|sims|p|mbps|gbps|in[- ]1|th|st|nd|rd|gen)(?![a-z])",
)
"""Units of no attribute: a number before one of them is neither a price nor a limit."""

UNIT_SUFFIXES = {
    "gb": "GB", "mb": "MB", "mah": "mAh", "hz": "Hz", "ghz": "GHz", "mhz": "MHz", "mp": "MP", "watts": "W", "w": "W",
    "volts": "V", "v": "V", "g": "g", "kg": "kg", "mm": "mm", "cm": "cm", "m": "m", "inches": "inches",
    "hours": "hours", "litres": "litres", "ml": "ml",
}  # fmt: skip
"""Last words of keys without a row, and the units that they name."""

HIDDEN_WORDS = frozenset({
    "package", "packaging", "pallet", "shipping", "master", "outer", "harmonized", "code", "certification",
    "temperature", "humidity", "ark", "id", "last", "change", "quantity", "layer", "sustainability", "ean",
})  # fmt: skip
"""Words in keys of attributes for dealers, which answers leave out."""

BY_KEY = {row.key: row for row in ATTRIBUTES}
UNITS = (
    *sorted(dict.fromkeys(unit for row in ATTRIBUTES for unit in row.units), key=lambda unit: not unit.qualified),
    OTHER_UNITS,
)
UNIT_BY_NAME = {unit.name: unit for unit in UNITS}
ATTRIBUTE_BY_SUBJECT = {row.subject: row for row in ATTRIBUTES if row.subject}
COLUMN_KEYS = frozenset(row.key for row in ATTRIBUTES if row.column)
COLUMN_SUBJECTS = frozenset(row.subject for row in ATTRIBUTES if row.column)
FACT_KEYS = tuple(row.key for row in ATTRIBUTES if row.fact)
QUALIFIER_KEYS = {key: row.key for row in ATTRIBUTES for key in row.qualifiers}
RANKED_KEYS = tuple(row.key for row in ATTRIBUTES if row.ranked)
MEASURE_WORDS = " ".join(row.words for row in ATTRIBUTES if row.words)
FILLER_WORDS = tuple(row.filler for row in ATTRIBUTES if row.filler)
FEATURES = {row.key: row.feature for row in ATTRIBUTES if row.feature}
FAST_FEATURES = {row.fast.feature: row for row in ATTRIBUTES if row.fast}
COMPARED = tuple(
    sorted(((row, row.comparison) for row in ATTRIBUTES if row.comparison), key=lambda compared: compared[1].rank)
)


def find_attribute(unit: str, kinds: Sequence[str], amount: int) -> Attribute | None:
    """Return the attribute that an amount in `unit` limits in products of these kinds."""
    rows = [row for row in ATTRIBUTES if row.limit and any(unit in {u.name, u.base} for u in row.units)]
    of_kind = [row for kind in kinds for row in rows if kind in row.kinds]
    of_others = [
        row
        for row in rows
        if row.in_other_kinds and (row.shared_max is None or len(rows) == 1 or amount <= row.shared_max)
    ]
    return next(iter(of_kind + of_others), None)


def _collect_preferences() -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = {}
    for row in ATTRIBUTES:
        for words, direction in ((row.preferences, 1), (row.preferences_less, -1)):
            for word in words.split():
                found.setdefault(word, []).append((row.key, direction))
    return found


PREFERENCES = _collect_preferences()
"""Attributes that a wish is about, and whether more (1) or less (-1) of them is better."""

_PHRASES = sorted((one.rank, one.pattern, one.direction, row.key) for row in ATTRIBUTES for one in row.follow_ups)
FOLLOW_UPS = tuple(
    (re.compile(pattern), tuple(phrase[-1] for phrase in phrases), direction)
    for (pattern, direction), phrases in itertools.groupby(_PHRASES, key=lambda phrase: phrase[1:3])
)
"""Patterns of phrases that compare with what was shown, the attributes meant by rank, and the direction."""
