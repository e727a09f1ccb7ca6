"""Features that shoppers and catalogues call by several names. A word that is not here stands for itself."""

from shopassist.models.criteria import Feature

_TABLE: tuple[tuple[str, str | None, str, str], ...] = (
    # name, attribute that may deny it, what shoppers say, what catalogues say besides
    ("5G", None, "5g", ""),
    ("4G", None, "4g|lte|volte|4g lte|4g volte", ""),
    ("wireless charging", "wireless_charging", "wireless charging|qi charging", "qi wireless"),
    ("wireless", "wireless", "wireless|cordless", "bluetooth"),
    ("Bluetooth", None, "bluetooth", ""),
    ("noise cancelling", "noise_cancelling",
     "noise cancelling|noise canceling|noise cancellation|noise reduction|active noise cancelling|anc", ""),
    ("waterproof", None, "waterproof|water proof", "ipx7|ipx8|ip67|ip68|ip69|5 atm|10 atm"),
    ("water resistant", None,
     "water resistant|water resistance|splash proof|splashproof|sweat proof|sweatproof|sweat resistant|water repellent",
     "waterproof|ipx4|ipx5|ip54|ip55|ipx7|ipx8|ip67|ip68|ip69|5 atm"),
    ("headphone jack", "headphone_jack",
     "headphone jack|audio jack|3.5mm jack|3.5 mm jack|3.5mm headphone jack|3.5mm audio jack|aux port", ""),
    ("NFC", "nfc", "nfc", ""),
    ("GPS", "gps", "gps", ""),
    ("microSD", "microsd", "microsd|micro sd|memory card slot|sd card slot|expandable storage|expandable memory", ""),
    ("fast charging", "fast_charging", "fast charging|fast charge|quick charge|quick charging|rapid charging", ""),
    ("dual SIM", None, "dual sim|two sim", ""),
    ("AMOLED", None, "amoled", ""),
    ("OLED", None, "oled", "amoled|poled|super amoled"),
    ("4K", None, "4k|4k uhd|uhd|ultra hd|4k ultra hd|2160p", "3840x2160"),
    ("full HD", None, "full hd|fhd|1080p", "1920x1080|1920x1200"),
    ("touchscreen", "touchscreen", "touchscreen|touch screen|touch-screen", ""),
    ("backlit keyboard", None, "backlit keyboard|backlit|backlight keyboard", "backlighting|backlight"),
    ("USB-C", None, "usb c|type c|usb type c", ""),
    ("Wi-Fi", None, "wifi|wi fi", ""),
    ("microphone", None, "mic|microphone|built in mic", ""),
    ("true wireless", None, "true wireless|truly wireless|tws", ""),
    ("over-ear", None, "over ear|overear|around ear", ""),
    ("on-ear", None, "on ear", ""),
    ("in-ear", None, "in ear", ""),
    ("neckband", None, "neckband|neck band", ""),
    ("smart TV", "smart_tv", "smart tv|smart television", "android tv|google tv|fire tv|webos|tizen"),
    ("flip", None, "flip phone|flip", "clamshell"),
    ("keypad", None, "keypad phone|keypad mobile|keypad|button phone", ""),
    ("SSD", None, "ssd", ""),
    ("external hard disk", None, "external hard drive|external hard disk|portable hard disk", "external hdd"),
    ("hard disk", None, "hard disk|hard drive|hdd", ""),
    ("pen drive", None, "pen drive|pendrive|flash drive", ""),
    ("memory card", None, "memory card|sd card|micro sd card|microsd card", "microsdxc|sdxc|sdhc"),
    ("DSLR", None, "dslr", ""),
    ("mirrorless", None, "mirrorless camera|mirrorless", ""),
    ("action camera", None, "action camera|action cam", ""),
    ("video camera", None, "video camera|camcorder", ""),
    ("soundbar", None, "soundbar|sound bar", ""),
    ("fitness band", None, "fitness band|fitness tracker|smart band", ""),
    ("dual band", None, "dual band", ""),
    ("tri band", None, "tri band", ""),
    ("PlayStation 5", None, "ps5|playstation 5|play station 5", ""),
    ("PlayStation 4", None, "ps4|playstation 4|play station 4", ""),
    ("foldable", None, "foldable|folding", "fold|flip"),
    ("voice assistant", None, "voice assistant", "alexa|siri|google assistant"),
    ("Bluetooth calling", None, "bluetooth calling", ""),
    ("multifunction", None, "all in one printer|all in one|multifunction", "scans copies|scanner copier"),
)  # fmt: skip

FEATURES: dict[str, Feature] = {
    phrase: Feature(name=name, wordings=tuple(w for w in f"{asked}|{stated}".split("|") if w), attribute=attribute)
    for name, attribute, asked, stated in _TABLE
    for phrase in asked.split("|")
}
"""From what shoppers say to the feature."""

PREFERENCES: dict[str, tuple[tuple[str, int], ...]] = {
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
