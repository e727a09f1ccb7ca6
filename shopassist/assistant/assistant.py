"""The assistant without a model: a grammar, the catalogue and computed comparisons."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit, urlunsplit

from shopassist.assistant import near_misses, wording
from shopassist.assistant.follow_ups import read_follow_up
from shopassist.assistant.near_misses import Catalog, find_unknown_terms
from shopassist.assistant.parsing.grammar import ParsedQuestion, ProductKeys, name_alternatives
from shopassist.assistant.parsing.phrases import VocabularyIndex, is_model_name
from shopassist.assistant.ranking import get_device_words, is_accessory, is_keyword_search, rank_products
from shopassist.assistant.summary import OFF_TOPIC_ANSWER, SummaryInput, build_empty_summary, build_summary
from shopassist.catalog.models import Criteria, Product, SortOrder
from shopassist.query.models import Answer, ConversationContext, NearMiss, Recommendation
from shopassist.settings import AssistantSettings

MAX_CANDIDATES = 100
MAX_RECOMMENDATIONS = 3
VOCABULARY_LIFETIME_SECONDS = 60
# Each droppable term costs one search before it is dropped.
MAX_DROPPABLE_TERMS = 4


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The products that meet `criteria`, best first.

    `is_truncated`: there may be more. `unmatched_names`: of several products in the question, those without a match.
    """

    criteria: Criteria
    products: list[Product]
    is_truncated: bool
    unmatched_names: tuple[str, ...] = ()


class CatalogAssistant:
    """Answers questions from the catalogue alone; `monotonic` returns seconds. Caches the catalogue's vocabulary."""

    def __init__(
        self, catalog: Catalog, settings: AssistantSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._monotonic = monotonic
        self._names: VocabularyIndex | None = None
        self._names_until = 0.0

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """Return the best three products that meet every criterion, or the reason why there are none."""
        names = await self._get_names()
        question, result = await self._parse_and_search(query, context, names)
        note = ""
        if not result.products and not question.is_unanswerable:
            corrections = await near_misses.find_corrections(self._catalog, question.criteria, names)
            if corrections:
                query, context = near_misses.correct_spelling(query, context, corrections)
                question, result = await self._parse_and_search(query, context, names)
                note = f"I read {' and '.join(f'“{written}” as {meant}' for written, meant in corrections.items())}."
        if result.products:
            return self._build_answer(result, question, names, note)
        if question.is_unanswerable or not (question.is_understood or await self._knows_terms(question.criteria)):
            return Answer(recommendations_summary=OFF_TOPIC_ANSWER)
        return await self._build_empty_answer(question, names, note)

    async def _get_names(self) -> VocabularyIndex:
        now = self._monotonic()
        if self._names is None or now >= self._names_until:
            vocabulary = await self._catalog.run(lambda work: work.catalog.get_vocabulary(), repeatable=True)
            self._names = VocabularyIndex(vocabulary, self._settings.market_currency)
            self._names_until = now + VOCABULARY_LIFETIME_SECONDS
        return self._names

    async def _parse_and_search(
        self, query: str, context: ConversationContext, names: VocabularyIndex
    ) -> tuple[ParsedQuestion, SearchResult]:
        question = await read_follow_up(context, query, names, self._find_shown)
        if question.is_unanswerable:
            return question, SearchResult(question.criteria, [], is_truncated=False)
        return question, await self._find_products(question)

    async def _find_shown(self, question: ParsedQuestion) -> list[Product]:
        return (await self._find_products(question)).products[:MAX_RECOMMENDATIONS]

    async def _find_products(self, question: ParsedQuestion) -> SearchResult:
        """Search; if nothing fits, drop terms. Of several named products the best of each come first."""
        if not question.alternatives:
            result = await self._search(question.criteria, question.excluded_products)
            relaxed = None if result.products else await self._drop_terms(question)
            return result if relaxed is None else await self._search(relaxed, question.excluded_products)
        results = [await self._search(one, question.excluded_products) for one in question.alternatives]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*(result.products for result in results)))
        products = list({product.key: product for product in turns if product is not None}.values())
        if question.criteria.sort_order is not SortOrder.RELEVANCE:
            products = rank_products(products, question.criteria)
        named = zip(name_alternatives(question.alternatives), results, strict=True)
        unmatched = tuple(name for name, result in named if not result.products)
        is_truncated = any(result.is_truncated for result in results)
        return SearchResult(question.criteria, products, is_truncated, unmatched)

    async def _search(self, criteria: Criteria, excluded: ProductKeys) -> SearchResult:
        """Search products of the categories; if they are few, also those without a category that state it in words."""
        result = await self._search_fitting(criteria.model_copy(update={"category_words": None}), excluded)
        if criteria.category_words is None or len(result.products) >= MAX_RECOMMENDATIONS:
            return replace(result, criteria=criteria)
        return await self._search_fitting(criteria, excluded)

    async def _search_fitting(self, criteria: Criteria, excluded: ProductKeys) -> SearchResult:
        # A noun without a category is a feature. As a preference it also orders the text matches.
        nouns = tuple(feature.name for feature in criteria.features[:1]) if not criteria.categories else ()
        preferences = (*criteria.preferences, *nouns)
        wanted = criteria.model_copy(update={"preferences": preferences})
        products = await near_misses.search_catalog(self._catalog, wanted, MAX_CANDIDATES)
        device_words = get_device_words(criteria)
        fitting = [
            product
            for product in products
            # The repository filters too, but no product that breaks a criterion may ever be recommended.
            if not criteria.find_unmet(product)
            and product.currency
            and product.key not in excluded
            and not is_accessory(product, device_words)
        ]
        return SearchResult(criteria, rank_products(fitting, criteria), len(products) >= MAX_CANDIDATES)

    async def _drop_terms(self, question: ParsedQuestion) -> Criteria | None:
        """Return criteria with droppable terms as preferences; None if the catalogue does not know one of them."""
        criteria = question.criteria
        dropped = [term for term in criteria.terms if term in question.droppable_terms]
        if not dropped or len(dropped) > MAX_DROPPABLE_TERMS or not is_keyword_search(criteria):
            return None
        if not (question.is_understood or len(dropped) < len(criteria.terms)):
            return None
        if await find_unknown_terms(self._catalog, dropped):
            return None
        kept = tuple(term for term in criteria.terms if term not in dropped)
        return criteria.model_copy(update={"terms": kept, "preferences": (*criteria.preferences, *dropped)})

    async def _knows_terms(self, criteria: Criteria) -> bool:
        """Return whether the catalogue knows every term, or at least the name of a model."""
        unknown = await find_unknown_terms(self._catalog, criteria.terms)
        known = [term for term in criteria.terms if term not in unknown]
        return bool(known) and (not unknown or any(is_model_name(term) for term in known))

    def _build_answer(
        self, result: SearchResult, question: ParsedQuestion, names: VocabularyIndex, note: str
    ) -> Answer:
        criteria, fitting = result.criteria, result.products
        best = fitting[:MAX_RECOMMENDATIONS]
        comparison = wording.ProductComparison(fitting, best, criteria)
        recommendations = [
            self._build_recommendation(p, criteria, comparison.list_pros(p), comparison.list_cons(p)) for p in best
        ]
        note = " ".join([note, *(f"Nothing fits “{name}”." for name in result.unmatched_names)]).strip()
        count = f"at least {len(fitting)}" if result.is_truncated else str(len(fitting))
        understood = SummaryInput(question, criteria, names, note)
        return Answer(
            products=recommendations,
            recommendations_summary=build_summary(understood, best, recommendations, count),
            criteria=wording.to_product_criteria(criteria, question.noun_text, names),
        )

    async def _build_empty_answer(self, question: ParsedQuestion, names: VocabularyIndex, note: str) -> Answer:
        searched = question.alternatives or (question.criteria,)
        results = [await near_misses.find_near_misses(self._catalog, one, names) for one in searched]
        rows = ([(product, one) for product in near.products] for one, near in zip(searched, results, strict=True))
        turns = [pair for turn in itertools.zip_longest(*rows) for pair in turn if pair is not None]
        nearest = [
            # Pros compare with products that fit, so a near miss has none.
            NearMiss(
                **self._build_recommendation(product, one, [], wording.describe_price_age(product)).model_dump(),
                misses=near_misses.describe_misses(product, one, names),
            )
            for product, one in turns
            # Products that meet everything were shown before.
            if product.price is not None and product.currency and one.find_unmet(product)
        ][:MAX_RECOMMENDATIONS]
        near = results[0] if len(results) == 1 else near_misses.merge_near_misses(results)
        return Answer(
            recommendations_summary=build_empty_summary(SummaryInput(question, question.criteria, names, note), near),
            near_misses=nearest,
            criteria=wording.to_product_criteria(question.criteria, question.noun_text, names),
        )

    def _build_recommendation(
        self, product: Product, criteria: Criteria, pros: list[str], cons: list[str]
    ) -> Recommendation:
        if product.price is None or product.currency is None:
            raise ValueError("a product without a price is never recommended")
        return Recommendation(
            title=product.title,
            price=float(product.price),
            currency=product.currency,
            rating=float(product.rating) if product.rating is not None else None,
            features=wording.select_facts(product, criteria),
            pros=pros,
            cons=cons,
            link=add_affiliate_tag(product.link, self._settings.affiliate_tag, self._settings.affiliate_program),
        )


TAGS_BY_HOST = {
    **dict.fromkeys(("amazon.in", "www.amazon.in", "amazon.com", "www.amazon.com"), ("amazon", "tag")),
    **dict.fromkeys(("flipkart.com", "www.flipkart.com"), ("flipkart", "affid")),
}
"""Shops and their query parameters for the tag, by exact host: `amazon.in.example` must never get the tag."""


def add_affiliate_tag(link: str, tag: str | None, program: str = "amazon") -> str:
    """Return a link with the tag if it leads to a shop of `program` (`amazon`, `flipkart` or `all`), else unchanged."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    # Compare the whole authority, so that credentials, ports and backslashes are never taken for a shop.
    shop, parameter = TAGS_BY_HOST.get(parts.netloc.lower(), (None, ""))
    is_known = shop is not None and parts.scheme == "https" and parts.netloc.isascii()
    if not tag or not is_known or program.strip().lower() not in {shop, "all"}:
        return link
    kept = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0].lower() != parameter]
    return urlunsplit(parts._replace(query="&".join([*kept, f"{parameter}={quote(tag, safe='')}"])))
