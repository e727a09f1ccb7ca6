"""Word lists and patterns of the grammar: kinds of products, features, stop words, connectives, negations."""

import re

from shopassist.catalog import attributes
from shopassist.catalog.attributes import FeatureWords
from shopassist.catalog.currencies import FILLER_WORDS
from shopassist.catalog.models import Feature, words_of

# Placeholders of what was understood keep the words around it from becoming adjacent.
NUMBER_MARK = "¦"
NUMBER_PLACEHOLDER = f" {NUMBER_MARK} "
PHRASE_PLACEHOLDER = " · "
MAX_QUESTION_LENGTH = 2000

NEGATION_MARKER = "xexcludedx"
"""Replaces every wording of a negation."""

DEVICE_NOUNS: dict[str, tuple[str, ...]] = {
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
"""Kinds of devices and the words for them."""

ACCESSORY_NOUNS: dict[str, tuple[str, ...]] = {
    "phone cases": (
        "case", "cover", "back cover", "phone case", "phone cover", "bumper", "mobile cover", "mobile case",
    ),
    "screen protectors": ("screen protector", "tempered glass", "glass screen protector", "screen guard"),
    "straps": ("watch band", "band", "strap", "watch strap"),
    "chargers": (
        "charger", "charging station", "wireless charging station", "wireless charging pad", "wireless charger",
        "power adapter", "charging dock", "wall charger",
    ),
    "cables": ("cable", "cord", "charging cable", "extension cord"),
    "holders": (
        "holder", "phone holder", "mount", "stand", "phone stand", "ring holder", "tripod", "grip", "popsocket",
    ),
    "bags": ("bag", "sleeve", "backpack", "pouch", "holster", "laptop bag", "briefcase"),
    "adapters": ("adapter", "adaptor", "dongle", "hub", "dock", "docking station"),
    "supplies": ("toner", "cartridge", "ink", "toner cartridge", "ink cartridge"),
    "batteries": ("battery", "batterie"),
    "parts": ("replacement", "back glass", "spare", "part", "panel", "hinge", "fan", "drum", "lamp", "bulb"),
    "game controllers": ("controller", "game pad", "gamepad", "joystick"),
    "furnishings": ("desk", "rack", "mouse pad", "mousepad", "skin", "sticker", "label", "remote", "stylus", "button"),
    "accessories": ("accessory",),
}  # fmt: skip
"""Kinds of accessories and the words for them; other words in the question name the device."""

ACCESSORY_WORDS = frozenset(words_of(phrase)[-1] for phrases in ACCESSORY_NOUNS.values() for phrase in phrases)

AMBIGUOUS_NOUNS: dict[str, tuple[str, ...]] = {
    "earphone": ("earbuds", "headphones"),
    "ear phone": ("earbuds", "headphones"),
    "in ear": ("earbuds", "headphones"),
    "bud": ("earbuds",),
}
"""Words for products that catalogues list in more than one category."""

VAGUE_NOUNS = frozenset({"phone", "mobile", "tab", "bud", "watch", "shades", "console", "battery pack"})
"""Nouns that descriptions of other products mention. They are a wording of a kind only if the shopper used them."""

TEXT_FEATURES = (
    FeatureWords("5G", "5g"),
    FeatureWords("4G", "4g|lte|volte|4g lte|4g volte"),
    FeatureWords("Bluetooth", "bluetooth"),
    FeatureWords("waterproof", "waterproof|water proof", "ipx7|ipx8|ip67|ip68|ip69|5 atm|10 atm"),
    FeatureWords("water resistant",
                 "water resistant|water resistance|splash proof|splashproof|sweat proof|sweatproof|sweat resistant|"
                 "water repellent",
                 "waterproof|ipx4|ipx5|ip54|ip55|ipx7|ipx8|ip67|ip68|ip69|5 atm"),
    FeatureWords("dual SIM", "dual sim|two sim"),
    FeatureWords("AMOLED", "amoled"),
    FeatureWords("OLED", "oled", "amoled|poled|super amoled"),
    FeatureWords("4K", "4k|4k uhd|uhd|ultra hd|4k ultra hd|2160p", "3840x2160"),
    FeatureWords("full HD", "full hd|fhd|1080p", "1920x1080|1920x1200"),
    FeatureWords("backlit keyboard", "backlit keyboard|backlit|backlight keyboard", "backlighting|backlight"),
    FeatureWords("USB-C", "usb c|type c|usb type c"),
    FeatureWords("Wi-Fi", "wifi|wi fi"),
    FeatureWords("microphone", "mic|microphone|built in mic"),
    FeatureWords("true wireless", "true wireless|truly wireless|tws"),
    FeatureWords("over-ear", "over ear|overear|around ear"),
    FeatureWords("on-ear", "on ear"),
    FeatureWords("in-ear", "in ear"),
    FeatureWords("neckband", "neckband|neck band"),
    FeatureWords("flip", "flip phone|flip", "clamshell"),
    FeatureWords("keypad", "keypad phone|keypad mobile|keypad|button phone"),
    FeatureWords("SSD", "ssd"),
    FeatureWords("external hard disk", "external hard drive|external hard disk|portable hard disk", "external hdd"),
    FeatureWords("hard disk", "hard disk|hard drive|hdd"),
    FeatureWords("pen drive", "pen drive|pendrive|flash drive"),
    FeatureWords("memory card", "memory card|sd card|micro sd card|microsd card", "microsdxc|sdxc|sdhc"),
    FeatureWords("DSLR", "dslr"),
    FeatureWords("mirrorless", "mirrorless camera|mirrorless"),
    FeatureWords("action camera", "action camera|action cam"),
    FeatureWords("video camera", "video camera|camcorder"),
    FeatureWords("soundbar", "soundbar|sound bar"),
    FeatureWords("fitness band", "fitness band|fitness tracker|smart band"),
    FeatureWords("dual band", "dual band"),
    FeatureWords("tri band", "tri band"),
    FeatureWords("PlayStation 5", "ps5|playstation 5|play station 5"),
    FeatureWords("PlayStation 4", "ps4|playstation 4|play station 4"),
    FeatureWords("foldable", "foldable|folding", "fold|flip"),
    FeatureWords("voice assistant", "voice assistant", "alexa|siri|google assistant"),
    FeatureWords("Bluetooth calling", "bluetooth calling"),
    FeatureWords("multifunction", "all in one printer|all in one|multifunction", "scans copies|scanner copier"),
)  # fmt: skip
"""Features that products state in their text, without an attribute of their own."""

FEATURE_BY_PHRASE = {
    phrase: Feature(
        name=words.name,
        wordings=tuple(wording for wording in f"{words.asked}|{words.stated}".split("|") if wording),
        denying_attribute=key,
    )
    for key, words in [*((None, words) for words in TEXT_FEATURES), *attributes.FEATURES.items()]
    for phrase in words.asked.split("|")
}


def _fold_words(paragraph: str) -> frozenset[str]:
    """Return the words in the form of tokens: without apostrophes, singular."""
    return frozenset(words_of(paragraph.replace("'", "")))


STOP_WORDS = _fold_words(
    """
    nothing no one be act a an the this that these those there it its it's i i'm im i'd me my we us our you your he
    she they them their his her is are was were be been being am do does did doing done can could would should shall
    will may might must have has had having want wants wanted need needs needed like love look looking looks search
    searching find finding found show showing shows tell give get getting got buy buying purchase purchasing
    recommend recommendation recommendations suggest suggestion suggestions suggested help please pls plz kindly see
    let go any some something anything everything thing things stuff one ones kind kinds sort type types which what
    what's whats who where when why how much many more most less least very too so really quite just only also even
    still than then now today here out of off on in at by to as from into about up down and or but if because while
    during per each every all longer louder bigger larger smaller lighter faster cheaper taller wider stronger
    quieter brighter thinner dearer pricier costlier both either neither nor with for under over above below between
    around within than top best good great better nice decent excellent amazing awesome perfect ideal suitable right
    latest newest new brand-new recent available price priced prices pricing cost costs costing budget
    money range ranging rated rating ratings review reviews reviewed star stars customer customers
    buyer buyers user users feedback people number amount large lot lots minimum maximum higher lower highly
    strongly options option choice choices list product products item items model models brand brands market shop
    store online india indian order deal deals offer offers hi hello hey thanks thank ok okay yes sure currently use
    using used usage daily everyday purpose purposes average averagely between etc approximately least fully come
    comes coming made make makes work works working compare comparison versus vs size inch inches gb colour color
    coloured colored won't don't can't doesn't didn't isn't aren't shouldn't mustn't wouldn't not without except
    excluding avoid other others another else instead prefer preferably preferred preference ideally maybe perhaps
    possibly around same similar such well difference differences sabse ka ki ke ko hai hain wala wale wali
    chahiye mujhe accha achha acha acchi achhi achi badhiya bhi dikhao batao koi mein
    """
    + FILLER_WORDS
)

WISH_WORDS = _fold_words(
    """
    stylish cute adorable pretty beautiful elegant cool unique premium luxury fancy funny popular trendy trending
    fashionable modern classic sleek slick slim thin light lightweight compact small tiny big huge fast quick speedy
    powerful strong sturdy durable rugged tough reliable quality affordable cheap cheapest inexpensive
    budget-friendly economical simple basic easy comfortable comfy soft custom favourite favorite professional
    versatile efficient solid robust smooth bright crisp loud expensive costly bulky heavy old slow long lasting
    life attractive colourful colorful gorgeous lovely interesting excellent brand decent worth worthy value
    everyday practical handy safe secure ergonomic quiet silent athletic sporty international entry entry-level
    flagship high-end high end low low-cost mid mid-range midrange women woman men man girl girls boy boys kid kids
    child children student students mom mum mother dad father wife husband parent parents grandma grandmother
    grandpa grandfather gift birthday travel travelling office home college school university work
    """
)
"""Opinions about products and groups of users; catalogues do not state them as facts."""

MEASURE_WORDS = _fold_words(attributes.MEASURE_WORDS)
"""Words that repeat what the number beside them is about."""

LIMIT_WORDS = ("under", "below", "above", "over", "between", "within", "around", "budget", "cheapest", "without")
"""Words of limits that are recognised even if they are misspelt."""

CLAUSE_OPENERS = _fold_words("that which who because so since while when where if")
"""Connectives that open a clause about the shopper, not about the product."""

CONNECTIVES = _fold_words(
    "with having has have that which who whose for from in on of and or but because so since while when where to by"
    " featuring including offering without except like under aur ya"
)
"""Words that end the noun phrase of the product."""

COMPATIBILITY_WORDS = frozenset({"for", "fits", "fitting", "compatible"})

CHIP_MAKERS = frozenset({"intel", "amd", "nvidia", "qualcomm", "mediatek"})
"""Makers of components; next to a device their name means what is inside."""

COLOURS = _fold_words(
    "black white grey gray silver gold golden red blue navy green yellow orange purple violet pink brown beige cream"
    " teal turquoise maroon bronze copper transparent clear"
)
"""Colours; unlike other descriptive words they are never dropped from the criteria."""

PRODUCT_LINES = _fold_words(
    "iphone ipad ipod macbook imac airpod airtag galaxy pixel moto redmi nokia kindle xbox playstation ps4 ps5 switch"
    " nintendo surface thinkpad ideapad echo watch note series"
)
"""Product lines. Next to one, the brand in a question for an accessory is that of the device."""

OR_WORDS = frozenset({"or", "ya"})
AND_WORDS = frozenset({"and", "aur", "&"})

OR_PATTERN = re.compile(r"\b(?:or|vs|versus|ya)\b")
COMPARISON_SEPARATOR = re.compile(r"\b(?:or|vs|versus|and|with|to|against|ya|aur)\b|,")
COMPARISON_PATTERN = re.compile(r"\b(?:compar(?:e|ed|ing|ison)|differences?|better|vs|versus)\b")
"""`OR_PATTERN` separates alternatives; if `COMPARISON_PATTERN` is found, `COMPARISON_SEPARATOR` does."""

HINDI_LINKER = re.compile(r" (?:wal[aei]|k[aei])(?= )")
"""Joins a modifier to its noun in Hindi: a "camera wala phone" is a camera phone."""

SHOPS = ("amazon", "flipkart", "croma", "ebay", "walmart", "myntra", "snapdeal", "jiomart", "tatacliq")
MARKETPLACE_PATTERN = re.compile(
    rf"\b(?:on|from|at|via|sold by) ({'|'.join(SHOPS)})(?:\.(?:in|com))?\b(?! (?:brand|echo|fire))"
)

ABBREVIATIONS = {"w/o": "without", "w/": "with ", "b/w": "between", "btw": "between"}
ABBREVIATION_PATTERN = re.compile(r"(?<![\w/])(?:w/o|w/|b/w|btw)(?![a-z])")

LEAD_IN = re.compile(
    r"^(?:(?:hi|hello|hey|ok|please|so|and|well)[ ,!]{1,2}){0,3}"
    r"(?:(?:can|could|would|will) you (?:please )?|please )?"
    r"(?:i am|i'm|im|we are|we're)? ?"
    r"(?:(?:i|we) (?:want|need|would like|wanna|wish|prefer)|i'd like|looking|look|search(?:ing)?|do a search|"
    r"show(?: me)?|find(?: me)?|get me|give me|tell me|suggest|recommend|which|"
    r"what(?:'s| is| are)|are there any|is there an?y?|"
    r"do you have(?: any)?|help me (?:find|choose|buy)|list)?"
    r"(?: to (?:find|buy|get|purchase|see|order))?(?: for| me| about| us)?(?: a| an| the| some| any)?(?= |$)"
)
BEST_RATED_PATTERN = re.compile(
    r"\b(?:(?:highly|top|best|well|decently|highest|good)[ -](?:rated|reviewed|ratings?)|"
    r"(?:good|great|many|lots? of|large number of|good number of|decent number of|strong|excellent|decent|high|"
    r"positive|a lot of|better)(?: (?:number of|customer|user|buyer)){0,2} (?:reviews?|ratings?|feedback)|"
    r"reviewed by (?:many|lots of|a lot of) \w{1,12}|popular|best ?sell(?:ing|ers?))\b"
)
CHEAPEST_PATTERN = re.compile(
    r"\b(?:cheap(?:est)?|lowest[ -]priced?|least expensive|most affordable|affordable|inexpensive|low[ -]cost|"
    r"budget[ -]friendly|economical|budget(?! (?:of|is|:|¦))|(?:sabse )?sast[aei])\b"
)
MOST_EXPENSIVE_PATTERN = re.compile(
    r"\b(?:most expensive|costliest|priciest|highest[ -]priced?|(?:sabse )?m[ae]h[ae]?ng[aei])\b"
)
NEGATION_PATTERN = re.compile(
    r"\b(?:not|no|except(?: for)?|excluding|exclude|without|other than|anything but|avoid|apart from|besides|"
    r"nothing from|rather than|don't (?:want|like)|do not want|hate)\b(?: (?:a|an|the|any|from|by|made by|want)\b){0,2}"
)
OFF_TOPIC_PATTERN = re.compile(
    r"\b(?:weather|forecast|poem|poetry|joke|story|essay|song|lyrics|recipe|translate|prime minister|president|"
    r"capital of|ignore (?:all |any |the )?(?:previous|above|prior)|system prompt|instructions|who (?:is|are|was|were)|"
    r"write (?:me )?an?|meaning of life|how are you|password|api key)\b"
)
"""Topics of other questions. A recognised kind of product outweighs them ("laptop for writing poems")."""
