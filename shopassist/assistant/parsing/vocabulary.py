"""Tokens of a question, tables that find phrases in them, and the names that the catalogue knows."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shopassist.catalog.criteria import Feature
from shopassist.catalog.models import WORD, Vocabulary, words_of

T = TypeVar("T")

# Placeholders of what was understood keep the words around it from becoming adjacent.
NUMBER_MARK = "¦"
NUMBER_PLACEHOLDER = f" {NUMBER_MARK} "
PHRASE_PLACEHOLDER = " · "

MAX_QUESTION_LENGTH = 2000
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_PUNCTUATION = re.compile(r"[.,;:?!()\[\]{}\"“”]")
_SPACES = re.compile(r"\s+")


@dataclass(slots=True)
class Token:
    """A word of a question: `word` as in `Product.words`, `text` as written.

    `is_adjacent`: only a space or a hyphen separates it from the previous word. `beside_number`: it is next to a number
    that was understood.
    """

    word: str
    text: str
    is_adjacent: bool
    follows_punctuation: bool
    beside_number: bool


def normalise_question(question: str) -> str:
    """Return a question in lower case, without accents, with plain quotes and single spaces, cut to 2,000 letters."""
    plain = unicodedata.normalize(
        "NFKD", question[:MAX_QUESTION_LENGTH].replace("″", '"').replace(APOSTROPHE, "'")
    ).casefold()
    bare = "".join(c for c in plain if c.isspace() or (c.isprintable() and not unicodedata.combining(c)))
    return _SPACES.sub(" ", bare.replace(NUMBER_MARK, " ")).strip()[:MAX_QUESTION_LENGTH]


def tokenise(text: str) -> list[Token]:
    """Split a normalised text into tokens; possessives lose their apostrophe."""
    text = text.replace("'", "")
    tokens: list[Token] = []
    end = 0
    for match in WORD.finditer(text):
        between = text[end : match.start()]
        joined = bool(tokens) and between.strip(" -/&+") == ""
        beside_blank = (
            between.rstrip(" ").endswith(NUMBER_MARK) or text[match.end() : match.end() + 2].lstrip(" ") == NUMBER_MARK
        )
        punctuated = bool(_PUNCTUATION.search(between))
        tokens += [Token(word, match[0], joined, punctuated, beside_blank) for word in words_of(match[0])]
        end = match.end()
    return tokens


class PhraseTable(Generic[T]):
    """Finds the longest known phrase at a position of a question. Phrases are compared by their `words_of`."""

    def __init__(self, phrases: Mapping[str, T]) -> None:
        self._table = {tuple(words_of(phrase)): value for phrase, value in phrases.items()}
        self._table.pop((), None)
        self._longest = max((len(key) for key in self._table), default=0)

    def match_at(self, tokens: Sequence[Token], place: int) -> tuple[int, T] | None:
        """Return the length of the longest phrase that starts at `place`, and its value."""
        words = [tokens[place].word]
        for token in tokens[place + 1 : place + self._longest]:
            if not token.is_adjacent:
                break
            words.append(token.word)
        for length in range(len(words), 0, -1):
            value = self._table.get(tuple(words[:length]))
            if value is not None:
                return length, value
        return None


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

AMBIGUOUS_NOUNS: dict[str, tuple[str, ...]] = {
    "earphone": ("earbuds", "headphones"),
    "ear phone": ("earbuds", "headphones"),
    "in ear": ("earbuds", "headphones"),
    "bud": ("earbuds",),
}
"""Words for products that catalogues list in more than one category."""

VAGUE_NOUNS = frozenset({"phone", "mobile", "tab", "bud", "watch", "shades", "console", "battery pack"})
"""Nouns that descriptions of other products mention. They are a wording of a kind only if the shopper used them."""


@dataclass(frozen=True, slots=True)
class ProductNoun:
    """A noun for products: the kinds that it means, and the catalogue's categories for them."""

    text: str
    kinds: tuple[str, ...]
    categories: tuple[str, ...]
    accessory: bool

    def to_feature(self) -> Feature:
        """Return the feature that a product without a category must state to be meant."""
        kinds = () if self.accessory else self.kinds
        phrases = [phrase for kind in kinds for phrase in DEVICE_NOUNS.get(kind, ()) if phrase not in VAGUE_NOUNS]
        return Feature(name=self.text, wordings=tuple(dict.fromkeys([self.text, *phrases])))


def find_categories(phrase: str, categories: tuple[str, ...]) -> list[str]:
    """Return the categories with the words of `phrase`, in lower case."""
    words = words_of(phrase)
    return [category.lower() for category in categories if words_of(category) == words]


def _is_accessory_noun(phrase: str) -> bool:
    last = words_of(phrase)[-1]
    return any(last == words_of(word)[-1] for phrases in ACCESSORY_NOUNS.values() for word in phrases)


class VocabularyIndex:
    """Index of the brands, categories and currencies of the catalogue.

    `market_currency` is that of prices without a mark, unless the catalogue has only one other currency.
    """

    def __init__(self, vocabulary: Vocabulary, market_currency: str) -> None:
        self.brands = PhraseTable({brand: brand.lower() for brand in vocabulary.brands})
        self.joined_brands = {"".join(words_of(brand)): brand.lower() for brand in vocabulary.brands}
        self.spelling = {brand.lower(): brand for brand in vocabulary.brands}
        self.currencies = frozenset(vocabulary.currencies)
        sole = next(iter(self.currencies)) if len(self.currencies) == 1 else None
        self.currency = sole if sole is not None and market_currency not in self.currencies else market_currency
        self.nouns = PhraseTable(_index_nouns(vocabulary.categories))

    def spell_brand(self, brand: str) -> str:
        """Return a brand as the catalogue spells it."""
        return self.spelling.get(brand, brand)

    def spell_brands(self, brands: Iterable[str]) -> str:
        """Return alternative brands as the catalogue spells them, joined by "or"."""
        return " or ".join(map(self.spell_brand, brands))


def _index_nouns(categories: tuple[str, ...]) -> dict[str, ProductNoun]:
    """Return all nouns for kinds of products: those of this module and the catalogue's categories."""
    own: dict[str, set[str]] = defaultdict(set)
    for category in categories:
        words = words_of(category)
        for phrase in {" ".join(words), words[-1]} if words else ():
            own[phrase].add(category.lower())
    by_kind = {
        kind: tuple(sorted({c for p in (kind, *phrases) for c in find_categories(p, categories)}))
        for kind, phrases in (DEVICE_NOUNS | ACCESSORY_NOUNS).items()
    }
    nouns = {
        phrase: ProductNoun(phrase, (), tuple(sorted(found)), _is_accessory_noun(phrase))
        for phrase, found in own.items()
    }
    for kind, phrases in (DEVICE_NOUNS | ACCESSORY_NOUNS).items():
        for phrase in (*phrases, kind):
            folded = " ".join(words_of(phrase))
            kinds = AMBIGUOUS_NOUNS.get(phrase, (kind,))
            found = tuple(c for k in kinds for c in by_kind[k]) or tuple(sorted(own.get(folded, ())))
            if phrase != kind or folded not in nouns:
                nouns[folded] = ProductNoun(phrase, kinds, found, kind in ACCESSORY_NOUNS)
    for phrase, kinds in AMBIGUOUS_NOUNS.items():
        found = tuple(c for k in kinds for c in by_kind[k])
        nouns[" ".join(words_of(phrase))] = ProductNoun(phrase, kinds, found, accessory=False)
    return nouns
