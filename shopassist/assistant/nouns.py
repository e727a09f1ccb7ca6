"""Kinds of products: what shoppers call them, and which attributes a figure speaks of in them."""

DEVICES: dict[str, tuple[str, ...]] = {
    "smartphones": (
        "smartphone", "smart phone", "phone", "mobile", "mobile phone", "cell phone", "cellphone", "handset",
        "android phone",
    ),
    "feature phones": (
        "feature phone", "keypad phone", "keypad mobile", "basic phone", "flip phone", "button phone", "dumb phone",
    ),
    "laptops": ("laptop", "notebook", "ultrabook", "laptop computer", "notebook computer"),
    "tablets": ("tablet", "tab", "tablet pc"),
    "headphones": ("headphone", "head phone", "headset", "head set"),
    "earbuds": ("earbud", "ear bud", "tws", "neckband", "bud"),
    "smartwatches": ("smartwatch", "smart watch", "watch", "fitness band", "fitness tracker", "smart band"),
    "televisions": ("television", "tv", "smart tv", "smart television"),
    "monitors": ("monitor", "computer monitor", "gaming monitor"),
    "cameras": ("camera", "digital camera", "dslr", "mirrorless camera", "action camera", "video camera", "camcorder"),
    "speakers": ("speaker", "soundbar", "sound bar", "loudspeaker"),
    "power banks": ("power bank", "powerbank", "portable charger", "battery pack"),
    "printers": ("printer",),
    "routers": ("router", "wifi router", "wi fi router"),
    "storage": (
        "ssd", "hard drive", "hard disk", "external hard drive", "external hard disk", "pen drive", "pendrive",
        "flash drive", "memory card", "sd card", "microsd card", "micro sd card", "hdd",
    ),
    "keyboards": ("keyboard",),
    "mice": ("mouse", "mice"),
    "gaming consoles": ("gaming console", "game console", "console"),
    "air fryers": ("air fryer", "airfryer"),
    "fragrances": ("fragrance", "perfume", "cologne"),
    "sunglasses": ("sunglasses", "shades"),
}  # fmt: skip
"""Kinds that are bought for themselves, with the words that name them."""

ACCESSORIES: dict[str, tuple[str, ...]] = {
    "phone cases": (
        "case",
        "cover",
        "back cover",
        "phone case",
        "phone cover",
        "bumper",
        "mobile cover",
        "mobile case",
    ),
    "screen protectors": ("screen protector", "tempered glass", "glass screen protector", "screen guard"),
    "straps": ("watch band", "band", "strap", "watch strap"),
    "chargers": (
        "charger",
        "charging station",
        "wireless charging station",
        "wireless charging pad",
        "wireless charger",
        "power adapter",
        "charging dock",
        "wall charger",
    ),
    "cables": ("cable", "cord", "charging cable", "extension cord"),
    "holders": (
        "holder",
        "phone holder",
        "mount",
        "stand",
        "phone stand",
        "ring holder",
        "tripod",
        "grip",
        "popsocket",
    ),
    "bags": ("bag", "sleeve", "backpack", "pouch", "holster", "laptop bag", "briefcase"),
    "adapters": ("adapter", "adaptor", "dongle", "hub", "dock", "docking station"),
    "supplies": ("toner", "cartridge", "ink", "toner cartridge", "ink cartridge"),
    "batteries": ("battery", "batterie"),
    "parts": ("replacement", "back glass", "spare", "part", "panel", "hinge", "fan", "drum", "lamp", "bulb"),
    "game controllers": ("controller", "game pad", "gamepad", "joystick"),
    "furnishings": ("desk", "rack", "mouse pad", "mousepad", "skin", "sticker", "label", "remote", "stylus", "button"),
    "accessories": ("accessory",),
}
"""Kinds that are bought for another thing: what stands beside them names that thing."""

SEVERAL: dict[str, tuple[str, ...]] = {
    "earphone": ("earbuds", "headphones"),
    "ear phone": ("earbuds", "headphones"),
    "in ear": ("earbuds", "headphones"),
    "bud": ("earbuds",),
}
"""Words that catalogues file under more than one category."""

PHONES_AND_TABLETS = frozenset({"smartphones", "feature phones", "tablets"})
SCREENS = frozenset({"televisions", "monitors"})
LARGEST_RAM_GB = 24
"""A capacity of a phone or a laptop without another word is memory up to here, storage above."""

ATTRIBUTES = {
    "ram": "ram_gb", "storage": "storage_gb", "inches": "screen_inches", "mah": "battery_mah", "hz": "refresh_rate_hz",
    "mp": "main_camera_mp", "front_mp": "front_camera_mp", "watts": "output_watts", "hours": "battery_hours",
    "litres": "capacity_litres", "grams": "weight_g", "rating": "rating", "reviews": "rating_count",
}  # fmt: skip
SPECIAL_ATTRIBUTES = {
    ("mah", "power banks"): "capacity_mah",
    ("watts", "smartphones"): "charging_watts",
    ("watts", "tablets"): "charging_watts",
    ("watts", "power banks"): "charging_watts",
    ("watts", "air fryers"): "power_watts",
}


def attribute_of(subject: str, kinds: tuple[str, ...]) -> str | None:
    """The attribute that a quantity of this subject limits in products of these kinds."""
    special = (SPECIAL_ATTRIBUTES.get((subject, kind)) for kind in kinds)
    return next((name for name in special if name), None) or ATTRIBUTES.get(subject)


def capacity_of(gigabytes: int, kinds: tuple[str, ...]) -> str:
    """Whether a bare capacity means `ram` or `storage`."""
    return "storage" if "storage" in kinds or "gaming consoles" in kinds or gigabytes > LARGEST_RAM_GB else "ram"
