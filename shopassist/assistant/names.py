"""The catalogue's own names, indexed once for each state of the catalogue."""

from collections import defaultdict
from dataclasses import dataclass

from shopassist.assistant.nouns import ACCESSORIES, DEVICES, SEVERAL
from shopassist.assistant.tokens import PhraseTable
from shopassist.models.catalog import Vocabulary
from shopassist.models.criteria import Feature
from shopassist.models.words import words_of

VAGUE = frozenset({"phone", "mobile", "tab", "bud", "watch", "shades", "console", "battery pack"})
"""Nouns that other products' descriptions mention: in a text without a category they count only when asked for."""


@dataclass(frozen=True, slots=True)
class Noun:
    """What a product is called: the kinds it names, the catalogue's categories for it, its wordings in texts."""

    said: str
    kinds: tuple[str, ...]
    categories: tuple[str, ...]
    accessory: bool

    def feature(self) -> Feature:
        """How a text without a category states this noun."""
        phrases = [] if self.accessory else [p for kind in self.kinds for p in DEVICES.get(kind, ()) if p not in VAGUE]
        return Feature(name=self.said, wordings=tuple(dict.fromkeys([self.said, *phrases])))


class Names:
    """Brands, categories and currencies of the catalogue, ready for looking up."""

    def __init__(self, vocabulary: Vocabulary, market_currency: str) -> None:
        """`market_currency` is what a price without a mark means where the catalogue has such prices."""
        self.brands = PhraseTable({brand: brand.lower() for brand in vocabulary.brands})
        self.joined_brands = {"".join(words_of(brand)): brand.lower() for brand in vocabulary.brands}
        self.spelling = {brand.lower(): brand for brand in vocabulary.brands}
        self.currencies = frozenset(vocabulary.currencies)
        sole = next(iter(self.currencies)) if len(self.currencies) == 1 else None
        self.currency = sole if sole is not None and market_currency not in self.currencies else market_currency
        self.nouns = PhraseTable(_nouns(vocabulary.categories))


def _nouns(categories: tuple[str, ...]) -> dict[str, Noun]:
    """Every noun that names a kind, whether the kind is ours or the catalogue's own."""
    own: dict[str, set[str]] = defaultdict(set)
    for category in categories:
        words = words_of(category)
        for phrase in {" ".join(words), words[-1]} if words else ():
            own[phrase].add(category.lower())
    by_kind = {
        kind: tuple(sorted({c for p in (kind, *phrases) for c in categories_named(p, categories)}))
        for kind, phrases in (DEVICES | ACCESSORIES).items()
    }
    nouns = {phrase: Noun(phrase, (), tuple(sorted(found)), _accessory(phrase)) for phrase, found in own.items()}
    for kind, phrases in (DEVICES | ACCESSORIES).items():
        for phrase in (*phrases, kind):
            folded = " ".join(words_of(phrase))
            kinds = SEVERAL.get(phrase, (kind,))
            found = tuple(c for k in kinds for c in by_kind[k]) or tuple(sorted(own.get(folded, ())))
            if phrase != kind or folded not in nouns:
                nouns[folded] = Noun(phrase, kinds, found, kind in ACCESSORIES)
    for phrase, kinds in SEVERAL.items():
        found = tuple(c for k in kinds for c in by_kind[k])
        nouns[" ".join(words_of(phrase))] = Noun(phrase, kinds, found, accessory=False)
    return nouns


def categories_named(phrase: str, categories: tuple[str, ...]) -> list[str]:
    """The catalogue's categories that are called `phrase`, however they are written."""
    words = words_of(phrase)
    return [category.lower() for category in categories if words_of(category) == words]


def _accessory(phrase: str) -> bool:
    last = words_of(phrase)[-1]
    return any(last == words_of(word)[-1] for phrases in ACCESSORIES.values() for word in phrases)
