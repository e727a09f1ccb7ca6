"""Words with a part in a sentence rather than in a product: fillers, prepositions, wishes, negations."""

import re

from shopassist.models.words import words_of


def _folded(paragraph: str) -> frozenset[str]:
    """The words as tokens have them: without apostrophes, plurals folded."""
    return frozenset(words_of(paragraph.replace("'", "")))


STOP_WORDS = _folded(
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
    latest newest new brand-new recent available price priced prices pricing cost costs costing budget rupee rupees
    dollar dollars money range ranging rated rating ratings review reviews reviewed star stars customer customers
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
)

WISHES = _folded(
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
"""Words that say how somebody feels about a product or whom it is for: no catalogue states them as facts."""

MEASURED = _folded("charging ram rom storage memory display screen battery camera refresh rate capacity internal")
"""Words that only repeat what a figure beside them is about."""

LIMITS = ("under", "below", "above", "over", "between", "within", "around", "budget", "cheapest", "without")
"""Words of limits that are worth recognising when they are misspelt."""

CLAUSES = _folded("that which who because so since while when where if")
"""Connectives that open a sentence about the shopper rather than a fact about the product."""

CONNECTIVES = _folded(
    "with having has have that which who whose for from in on of and or but because so since while when where to by"
    " featuring including offering without except like under aur ya"
)
"""Words that end the noun phrase that names the product."""

COMPATIBLE = frozenset({"for", "fits", "fitting", "compatible"})

CHIP_MAKERS = frozenset({"intel", "amd", "nvidia", "qualcomm", "mediatek"})
"""Makers whose name, next to a device, speaks of what is inside."""

COLOURS = _folded(
    "black white grey gray silver gold golden red blue navy green yellow orange purple violet pink brown beige cream"
    " teal turquoise maroon bronze copper transparent clear"
)
"""Facts, unlike other words that describe: a red dress is never blue."""

LINES = _folded(
    "iphone ipad ipod macbook imac airpod airtag galaxy pixel moto redmi nokia kindle xbox playstation ps4 ps5 switch"
    " nintendo surface thinkpad ideapad echo watch note series"
)
"""Product lines: beside one of them an accessory's "Apple" or "Samsung" tells what it is for."""

EITHER = frozenset({"or", "ya"})
BOTH = frozenset({"and", "aur", "&"})

OR = re.compile(r"\b(?:or|vs|versus|ya)\b")
COMPARED_WITH = re.compile(r"\b(?:or|vs|versus|and|with|to|against|ya|aur)\b|,")
COMPARING = re.compile(r"\b(?:compar(?:e|ed|ing|ison)|differences?|better|vs|versus)\b")
"""What joins alternatives, and what says that more than "or" joins them."""

LINKER = re.compile(r" (?:wal[aei]|k[aei])(?= )")
"""Hindi joins with it what goes before to the noun behind: a "camera wala phone" is a camera phone."""

SHOPS = ("amazon", "flipkart", "croma", "ebay", "walmart", "myntra", "snapdeal", "jiomart", "tatacliq")
MARKETPLACE = re.compile(
    rf"\b(?:on|from|at|via|sold by) ({'|'.join(SHOPS)})(?:\.(?:in|com))?\b(?! (?:brand|echo|fire))"
)

ABBREVIATIONS = {"w/o": "without", "w/": "with ", "b/w": "between", "btw": "between"}
ABBREVIATED = re.compile(r"(?<![\w/])(?:w/o|w/|b/w|btw)(?![a-z])")

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
BEST_RATED = re.compile(
    r"\b(?:(?:highly|top|best|well|decently|highest|good)[ -](?:rated|reviewed|ratings?)|"
    r"(?:good|great|many|lots? of|large number of|good number of|decent number of|strong|excellent|decent|high|"
    r"positive|a lot of|better)(?: (?:number of|customer|user|buyer)){0,2} (?:reviews?|ratings?|feedback)|"
    r"reviewed by (?:many|lots of|a lot of) \w{1,12}|popular|best ?sell(?:ing|ers?))\b"
)
CHEAPEST = re.compile(
    r"\b(?:cheap(?:est)?|lowest[ -]priced?|least expensive|most affordable|affordable|inexpensive|low[ -]cost|"
    r"budget[ -]friendly|economical|budget(?! (?:of|is|:|¦))|(?:sabse )?sast[aei])\b"
)
DEAREST = re.compile(r"\b(?:most expensive|costliest|priciest|highest[ -]priced?|(?:sabse )?m[ae]h[ae]?ng[aei])\b")
NEGATION = re.compile(
    r"\b(?:not|no|except(?: for)?|excluding|exclude|without|other than|anything but|avoid|apart from|besides|"
    r"nothing from|rather than|don't (?:want|like)|do not want|hate)\b(?: (?:a|an|the|any|from|by|made by|want)\b){0,2}"
)
OTHER_TOPIC = re.compile(
    r"\b(?:weather|forecast|poem|poetry|joke|story|essay|song|lyrics|recipe|translate|prime minister|president|"
    r"capital of|ignore (?:all |any |the )?(?:previous|above|prior)|system prompt|instructions|who (?:is|are|was|were)|"
    r"write (?:me )?an?|meaning of life|how are you|password|api key)\b"
)
"""Questions no shop answers. A recognised kind of product outweighs it ("laptop for writing poems")."""
