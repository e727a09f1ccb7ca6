"""The rule-based assistant: parse the question, search the catalogue, rank and explain the result."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from shopassist.assistant.answering.affiliate_links import AffiliateLinks
from shopassist.assistant.answering.comparison import ProductComparison, describe_price_age
from shopassist.assistant.answering.near_misses import (
    describe_misses,
    find_near_misses,
    find_unknown_terms,
    merge_near_misses,
)
from shopassist.assistant.answering.summary import OFF_TOPIC_ANSWER, SummaryInput, build_empty_summary, build_summary
from shopassist.assistant.answering.wording import select_facts, to_product_criteria
from shopassist.assistant.follow_ups import FollowUpReader
from shopassist.assistant.parsing.alternatives import name_alternatives
from shopassist.assistant.parsing.grammar import ParsedQuestion, ProductKeys
from shopassist.assistant.parsing.lexicon import PRODUCT_LINES
from shopassist.assistant.parsing.phrases import is_model_name
from shopassist.assistant.parsing.spelling import (
    Corrections,
    apply_corrections,
    correct_context,
    describe_corrections,
    find_corrections,
)
from shopassist.assistant.parsing.vocabulary import DEVICE_NOUNS, VocabularyIndex
from shopassist.assistant.ranking import is_accessory, is_keyword_search, rank_products
from shopassist.catalog.criteria import Criteria, SortOrder
from shopassist.catalog.models import Product, words_of
from shopassist.catalog.ports import CatalogReader
from shopassist.query.models import Answer, ConversationContext, NearMiss, Recommendation
from shopassist.settings import AssistantSettings

MAX_CANDIDATES = 100
MAX_RECOMMENDATIONS = 3
VOCABULARY_LIFETIME_SECONDS = 60
MAX_DROPPABLE_TERMS = 4
"""Descriptive words that are looked up one by one before they are given up as requirements."""

DEVICE_WORDS = PRODUCT_LINES | {
    word for phrases in DEVICE_NOUNS.values() for phrase in phrases for word in words_of(phrase)[-1:]
}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The products that fit, best first, and the criteria that they meet."""

    criteria: Criteria
    products: list[Product]
    capped: bool
    absent: tuple[str, ...] = ()
    """Of several products that were named, those that nothing fits."""


class CatalogAssistant:
    """Answers from the catalogue alone. Holds nothing but the catalogue's names, for a minute."""

    def __init__(
        self, catalog: CatalogReader, settings: AssistantSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`monotonic` counts seconds, for the age of the names."""
        self._catalog = catalog
        self._currency = settings.market_currency
        self._links = AffiliateLinks(settings.affiliate_tag, settings.affiliate_program)
        self._monotonic = monotonic
        self._names: VocabularyIndex | None = None
        self._names_until = 0.0

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """The best three products that meet every criterion, or the reason why there are none."""
        names = await self._current_names()
        reading, found = await self._understand(query, context, names)
        corrected: Corrections = {}
        if not found.products and not reading.is_unanswerable:
            corrected = await find_corrections(self._catalog, reading.criteria, names)
        if corrected:
            query, context = apply_corrections(query, corrected), correct_context(context, corrected)
            reading, found = await self._understand(query, context, names)
        note = describe_corrections(corrected)
        if found.products:
            return self._recommend(found, reading, names, note)
        if reading.is_unanswerable or not (reading.is_understood or await self._any_known(reading.criteria)):
            return Answer(recommendations_summary=OFF_TOPIC_ANSWER)
        return await self._explain(reading, names, note)

    async def _understand(
        self, query: str, context: ConversationContext, names: VocabularyIndex
    ) -> tuple[ParsedQuestion, SearchResult]:
        reading = await FollowUpReader(names, self._shown).follow(context, query)
        if reading.is_unanswerable:
            return reading, SearchResult(reading.criteria, [], capped=False)
        return reading, await self._find(reading)

    async def _current_names(self) -> VocabularyIndex:
        now = self._monotonic()
        if self._names is None or now >= self._names_until:
            self._names = VocabularyIndex(await self._catalog.get_vocabulary(), self._currency)
            self._names_until = now + VOCABULARY_LIFETIME_SECONDS
        return self._names

    async def _shown(self, reading: ParsedQuestion) -> list[Product]:
        return (await self._find(reading)).products[:MAX_RECOMMENDATIONS]

    async def _find(self, reading: ParsedQuestion) -> SearchResult:
        """What meets the criteria; else what meets them without words that merely describe.

        Of several products that the question names, the best of each come first.
        """
        if reading.alternatives:
            sides = [await self._search(one, reading.excluded_products) for one in reading.alternatives]
            rounds = itertools.chain.from_iterable(itertools.zip_longest(*(side.products for side in sides)))
            products = list({(p.source, p.source_id): p for p in rounds if p is not None}.values())
            if reading.criteria.sort_order is not SortOrder.RELEVANCE:
                products = rank_products(products, reading.criteria)
            absent = [
                n for n, side in zip(name_alternatives(reading.alternatives), sides, strict=True) if not side.products
            ]
            return SearchResult(reading.criteria, products, any(side.capped for side in sides), tuple(absent))
        found = await self._search(reading.criteria, reading.excluded_products)
        if found.products or not reading.droppable_terms:
            return found
        relaxed = await self._without_loose(reading)
        return found if relaxed is None else await self._search(relaxed, reading.excluded_products)

    async def _search(self, criteria: Criteria, seen: ProductKeys) -> SearchResult:
        """Products that the catalogue files under the kind; where they are few, also those that only say so."""
        filed = await self._fitting(criteria.model_copy(update={"category_words": None}), seen)
        if criteria.category_words is None or len(filed.products) >= MAX_RECOMMENDATIONS:
            return replace(filed, criteria=criteria)
        return await self._fitting(criteria, seen)

    async def _fitting(self, criteria: Criteria, seen: ProductKeys) -> SearchResult:
        # A noun without a category is a feature to the catalogue: as a wish it also orders the text matches.
        named = tuple(feature.name for feature in criteria.features[:1]) if not criteria.categories else ()
        products = await self._catalog.search(
            criteria.model_copy(update={"preferences": (*criteria.preferences, *named)}), MAX_CANDIDATES
        )
        meant = get_device_words(criteria)
        # A repository is trusted to filter, yet nothing that breaks a criterion may ever be recommended.
        fitting = [p for p in products if not criteria.find_unmet(p) and p.currency and not is_accessory(p, meant)]
        fitting = [p for p in fitting if (p.source, p.source_id) not in seen]
        return SearchResult(criteria, rank_products(fitting, criteria), len(products) >= MAX_CANDIDATES)

    async def _without_loose(self, reading: ParsedQuestion) -> Criteria | None:
        """The criteria with descriptive words as wishes; None where a word is a name the catalogue does not know."""
        criteria = reading.criteria
        loose = [term for term in criteria.terms if term in reading.droppable_terms]
        if not loose or len(loose) > MAX_DROPPABLE_TERMS or not is_keyword_search(criteria):
            return None
        if not (reading.is_understood or len(loose) < len(criteria.terms)):
            return None
        for term in loose:
            if not await self._catalog.search(Criteria(terms=(term,)), 1):
                return None
        kept = tuple(term for term in criteria.terms if term not in loose)
        return criteria.model_copy(update={"terms": kept, "preferences": (*criteria.preferences, *loose)})

    async def _any_known(self, criteria: Criteria) -> bool:
        """Whether the catalogue knows every word that was asked for, if not together, or the name of a model."""
        unknown = await find_unknown_terms(self._catalog, criteria)
        known = [term for term in criteria.terms if term not in unknown]
        return bool(known) and (not unknown or any(is_model_name(term) for term in known))

    def _recommend(self, found: SearchResult, reading: ParsedQuestion, names: VocabularyIndex, note: str) -> Answer:
        criteria, fitting = found.criteria, found.products
        best = fitting[:MAX_RECOMMENDATIONS]
        comparison = ProductComparison(fitting, best, criteria)
        shown = [self._recommendation(p, criteria, comparison.list_pros(p), comparison.list_cons(p)) for p in best]
        said = get_noun_text(reading)
        note = " ".join([note, *(f"Nothing fits “{name}”." for name in found.absent)]).strip()
        count = f"at least {len(fitting)}" if found.capped else str(len(fitting))
        return Answer(
            products=shown,
            recommendations_summary=build_summary(
                SummaryInput(criteria, said, names, reading.criteria, note), best, shown, count
            ),
            criteria=to_product_criteria(criteria, said, names),
        )

    async def _explain(self, reading: ParsedQuestion, names: VocabularyIndex, note: str) -> Answer:
        criteria, said = reading.criteria, get_noun_text(reading)
        wanted = reading.alternatives or (criteria,)
        nears = [await find_near_misses(self._catalog, one, names, get_device_words(one)) for one in wanted]
        rows = ([(product, one) for product in near.products] for one, near in zip(wanted, nears, strict=True))
        by_turns = [pair for turn in itertools.zip_longest(*rows) for pair in turn if pair is not None]
        misses = [
            # What does not fit has no advantage over what fits: there is nothing to compare it with.
            NearMiss(
                **self._recommendation(product, one, [], describe_price_age(product)).model_dump(),
                misses=describe_misses(product, one, names),
            )
            for product, one in by_turns
            # What was shown before and is not wanted again misses nothing.
            if product.price is not None and product.currency and one.find_unmet(product)
        ][:MAX_RECOMMENDATIONS]
        near = nears[0] if len(nears) == 1 else merge_near_misses(nears)
        return Answer(
            recommendations_summary=build_empty_summary(
                SummaryInput(criteria, said, names, criteria, note, excludes_shown=bool(reading.excluded_products)),
                near,
            ),
            near_misses=misses,
            criteria=to_product_criteria(criteria, said, names),
        )

    def _recommendation(self, product: Product, criteria: Criteria, pros: list[str], cons: list[str]) -> Recommendation:
        if product.price is None or product.currency is None:
            raise ValueError("a product without a price is never recommended")
        return Recommendation(
            title=product.title,
            price=float(product.price),
            currency=product.currency,
            rating=float(product.rating) if product.rating is not None else None,
            features=select_facts(product, criteria),
            pros=pros,
            cons=cons,
            link=self._links.add_tag(product.link),
        )


def get_noun_text(reading: ParsedQuestion) -> str | None:
    """What the shopper called the kind of product."""
    return reading.noun.text if reading.noun else None


def get_device_words(criteria: Criteria) -> frozenset[str] | None:
    """The words of a question for a device, whose accessories are not meant; None for any other question."""
    named = [*criteria.categories, *criteria.terms, *(w for f in criteria.features for w in f.wordings)]
    words = frozenset(words_of(" ".join(named)))
    return words if words & DEVICE_WORDS else None
