"""The assistant that needs neither a model nor a key: a grammar, the catalogue, and arithmetic."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from shopassist.assistant.alternatives import names_of
from shopassist.assistant.comparison import Comparison, dated_price
from shopassist.assistant.conversation import Conversation
from shopassist.assistant.describe import described
from shopassist.assistant.facts import facts_of
from shopassist.assistant.grammar import Reading, Seen
from shopassist.assistant.lexicon import LINES
from shopassist.assistant.links import AffiliateLinks
from shopassist.assistant.misses import miss_words
from shopassist.assistant.names import Names
from shopassist.assistant.nouns import DEVICES
from shopassist.assistant.obstacles import merged_reasons, nearest, unknown_terms
from shopassist.assistant.phrases import names_model
from shopassist.assistant.port import Catalog
from shopassist.assistant.ranking import is_accessory, is_keyword_search, ranked
from shopassist.assistant.spelling import (
    Corrections,
    corrections,
    rewritten,
    rewritten_context,
    understood_words,
)
from shopassist.assistant.summary import POLITE, Told, empty_summary, summary_of
from shopassist.models.catalog import Product
from shopassist.models.criteria import Criteria, Order
from shopassist.models.query import Answer, ConversationContext, NearMiss, Recommendation
from shopassist.models.words import words_of
from shopassist.settings import AssistantSettings

CANDIDATES = 100
BEST = 3
NAMES_LIFETIME_SECONDS = 60
MOST_LOOSE = 4
"""Descriptive words that are looked up one by one before they are given up as requirements."""


DEVICE_WORDS = LINES | {word for phrases in DEVICES.values() for phrase in phrases for word in words_of(phrase)[-1:]}


@dataclass(frozen=True, slots=True)
class Found:
    """The products that fit, best first, and the criteria that they meet."""

    criteria: Criteria
    products: list[Product]
    capped: bool
    absent: tuple[str, ...] = ()
    """Of several products that were named, those that nothing fits."""


class CatalogAssistant:
    """Answers from the catalogue alone. Holds nothing but the catalogue's names, for a minute."""

    def __init__(
        self, catalog: Catalog, settings: AssistantSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`monotonic` counts seconds, for the age of the names."""
        self._catalog = catalog
        self._currency = settings.market_currency
        self._links = AffiliateLinks(settings.affiliate_tag, settings.affiliate_program)
        self._monotonic = monotonic
        self._names: Names | None = None
        self._names_until = 0.0

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """The best three products that meet every criterion, or the reason why there are none."""
        names = await self._current_names()
        reading, found = await self._understand(query, context, names)
        corrected: Corrections = {}
        if not found.products and not reading.unanswerable:
            corrected = await corrections(self._catalog, reading.criteria, names)
        if corrected:
            query, context = rewritten(query, corrected), rewritten_context(context, corrected)
            reading, found = await self._understand(query, context, names)
        note = understood_words(corrected)
        if found.products:
            return self._recommend(found, reading, names, note)
        if reading.unanswerable or not (reading.understood or await self._any_known(reading.criteria)):
            return Answer(recommendations_summary=POLITE)
        return await self._explain(reading, names, note)

    async def _understand(self, query: str, context: ConversationContext, names: Names) -> tuple[Reading, Found]:
        reading = await Conversation(names, self._shown).follow(context, query)
        if reading.unanswerable:
            return reading, Found(reading.criteria, [], capped=False)
        return reading, await self._find(reading)

    async def _current_names(self) -> Names:
        now = self._monotonic()
        if self._names is None or now >= self._names_until:
            self._names = Names(await self._catalog.vocabulary(), self._currency)
            self._names_until = now + NAMES_LIFETIME_SECONDS
        return self._names

    async def _shown(self, reading: Reading) -> list[Product]:
        return (await self._find(reading)).products[:BEST]

    async def _find(self, reading: Reading) -> Found:
        """What meets the criteria; else what meets them without words that merely describe.

        Of several products that the question names, the best of each come first.
        """
        if reading.alternatives:
            sides = [await self._search(one, reading.seen) for one in reading.alternatives]
            rounds = itertools.chain.from_iterable(itertools.zip_longest(*(side.products for side in sides)))
            products = list({(p.source, p.source_id): p for p in rounds if p is not None}.values())
            if reading.criteria.order is not Order.RELEVANCE:
                products = ranked(products, reading.criteria)
            absent = [n for n, side in zip(names_of(reading.alternatives), sides, strict=True) if not side.products]
            return Found(reading.criteria, products, any(side.capped for side in sides), tuple(absent))
        found = await self._search(reading.criteria, reading.seen)
        if found.products or not reading.loose:
            return found
        relaxed = await self._without_loose(reading)
        return found if relaxed is None else await self._search(relaxed, reading.seen)

    async def _search(self, criteria: Criteria, seen: Seen) -> Found:
        """Products that the catalogue files under the kind; where they are few, also those that only say so."""
        filed = await self._fitting(criteria.model_copy(update={"kind": None}), seen)
        if criteria.kind is None or len(filed.products) >= BEST:
            return replace(filed, criteria=criteria)
        return await self._fitting(criteria, seen)

    async def _fitting(self, criteria: Criteria, seen: Seen) -> Found:
        # A noun without a category is a feature to the catalogue: as a wish it also orders the text matches.
        named = tuple(feature.name for feature in criteria.features[:1]) if not criteria.categories else ()
        products = await self._catalog.search(
            criteria.model_copy(update={"wishes": (*criteria.wishes, *named)}), CANDIDATES
        )
        meant = device_words(criteria)
        # A repository is trusted to filter, yet nothing that breaks a criterion may ever be recommended.
        fitting = [p for p in products if not criteria.misses(p) and p.currency and not is_accessory(p, meant)]
        fitting = [p for p in fitting if (p.source, p.source_id) not in seen]
        return Found(criteria, ranked(fitting, criteria), len(products) >= CANDIDATES)

    async def _without_loose(self, reading: Reading) -> Criteria | None:
        """The criteria with descriptive words as wishes; None where a word is a name the catalogue does not know."""
        criteria = reading.criteria
        loose = [term for term in criteria.terms if term in reading.loose]
        if not loose or len(loose) > MOST_LOOSE or not is_keyword_search(criteria):
            return None
        if not (reading.understood or len(loose) < len(criteria.terms)):
            return None
        for term in loose:
            if not await self._catalog.search(Criteria(terms=(term,)), 1):
                return None
        kept = tuple(term for term in criteria.terms if term not in loose)
        return criteria.model_copy(update={"terms": kept, "wishes": (*criteria.wishes, *loose)})

    async def _any_known(self, criteria: Criteria) -> bool:
        """Whether the catalogue knows every word that was asked for, if not together, or the name of a model."""
        unknown = await unknown_terms(self._catalog, criteria)
        known = [term for term in criteria.terms if term not in unknown]
        return bool(known) and (not unknown or any(names_model(term) for term in known))

    def _recommend(self, found: Found, reading: Reading, names: Names, note: str) -> Answer:
        criteria, fitting = found.criteria, found.products
        best = fitting[:BEST]
        comparison = Comparison(fitting, best, criteria)
        shown = [self._recommendation(p, criteria, comparison.pros(p), comparison.cons(p)) for p in best]
        said = said_noun(reading)
        note = " ".join([note, *(f"Nothing fits “{name}”." for name in found.absent)]).strip()
        count = f"at least {len(fitting)}" if found.capped else str(len(fitting))
        return Answer(
            products=shown,
            recommendations_summary=summary_of(Told(criteria, said, names, reading.criteria, note), best, shown, count),
            criteria=described(criteria, said, names),
        )

    async def _explain(self, reading: Reading, names: Names, note: str) -> Answer:
        criteria, said = reading.criteria, said_noun(reading)
        wanted = reading.alternatives or (criteria,)
        nears = [await nearest(self._catalog, one, names, device_words(one)) for one in wanted]
        rows = ([(product, one) for product in near.products] for one, near in zip(wanted, nears, strict=True))
        by_turns = [pair for turn in itertools.zip_longest(*rows) for pair in turn if pair is not None]
        misses = [
            # What does not fit has no advantage over what fits: there is nothing to compare it with.
            NearMiss(
                **self._recommendation(product, one, [], dated_price(product)).model_dump(),
                misses=miss_words(product, one, names),
            )
            for product, one in by_turns
            # What was shown before and is not wanted again misses nothing.
            if product.price is not None and product.currency and one.misses(product)
        ][:BEST]
        near = nears[0] if len(nears) == 1 else merged_reasons(nears)
        return Answer(
            recommendations_summary=empty_summary(
                Told(criteria, said, names, criteria, note, again=bool(reading.seen)), near
            ),
            near_misses=misses,
            criteria=described(criteria, said, names),
        )

    def _recommendation(self, product: Product, criteria: Criteria, pros: list[str], cons: list[str]) -> Recommendation:
        if product.price is None or product.currency is None:
            raise ValueError("a product without a price is never recommended")
        return Recommendation(
            title=product.title,
            price=float(product.price),
            currency=product.currency,
            rating=float(product.rating) if product.rating is not None else None,
            features=facts_of(product, criteria),
            pros=pros,
            cons=cons,
            link=self._links.mark(product.link),
        )


def said_noun(reading: Reading) -> str | None:
    """What the shopper called the kind of product."""
    return reading.noun.said if reading.noun else None


def device_words(criteria: Criteria) -> frozenset[str] | None:
    """The words of a question for a device, whose accessories are not meant; None for any other question."""
    named = [*criteria.categories, *criteria.terms, *(w for f in criteria.features for w in f.wordings)]
    words = frozenset(words_of(" ".join(named)))
    return words if words & DEVICE_WORDS else None
