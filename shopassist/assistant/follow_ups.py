"""Follow-up questions: merge a question with the earlier ones and resolve comparisons such as "cheaper"."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal

from shopassist.assistant.parsing.grammar import ParsedQuestion, ProductKeys, parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.catalog.attributes import FOLLOW_UPS
from shopassist.catalog.models import Bound, Criteria, Product, SortOrder, get_number
from shopassist.query.models import ConversationContext, ProductCriteria

CENT = Decimal("0.01")
MIN_WHOLE_STEP_PRICE = 100
CHEAPER_PATTERN = re.compile(
    r"\b(?:cheaper|less expensive|lower price[ds]?|lower budget|too expensive|costs? less|less costly)\b"
)
MORE_EXPENSIVE_PATTERN = re.compile(r"\b(?:dearer|pricier|more expensive|costlier)\b")
BETTER_PATTERN = re.compile(
    r"\b(?:(?<!\bor )(?<!\band )better(?! (?:than|rat|review))|nicer|superior|upgrade|higher[- ]end|more premium)\b"
)
OTHERS_PATTERN = re.compile(
    r"\b(?:(?:any|some)thing (?:else|different)|what else|(?:any |some |the )?(?:other|another|different|more) "
    r"(?:one|option|choice|suggestion|result|recommendation|alternative)s?|"
    r"(?:show|see|give|tell)(?: me)? (?:some |any )?(?:more|others?|another)(?= please|[.!?]|$))"
)
COMPARISON_PATTERNS = (CHEAPER_PATTERN, MORE_EXPENSIVE_PATTERN, *(row[0] for row in FOLLOW_UPS), OTHERS_PATTERN)


def remove_comparisons(text: str) -> str:
    """Remove comparisons from a follow-up, so that the battery of "bigger battery" is not read as the product."""
    for pattern in COMPARISON_PATTERNS:
        text = pattern.sub(" ", text)
    return text


def is_comparison(text: str) -> bool:
    """Return whether the meaning of a follow-up depends on the products that were shown."""
    return any(pattern.search(text) for pattern in COMPARISON_PATTERNS) or _asks_for_better(text)


def asks_for_others(text: str) -> bool:
    """Return whether the products that were shown are not wanted again."""
    return bool(OTHERS_PATTERN.search(text)) or _asks_for_better(text)


def _asks_for_better(text: str) -> bool:
    for pattern, _, _ in FOLLOW_UPS:
        text = pattern.sub(" ", text)
    return BETTER_PATTERN.search(text) is not None


def apply_comparison(criteria: Criteria, fresh: Criteria, shown: list[Product], text: str) -> Criteria:
    """Add the limits that a comparison with `shown` means; `fresh` are the criteria of the follow-up itself."""
    cheaper = CHEAPER_PATTERN.search(text) is not None
    if cheaper or MORE_EXPENSIVE_PATTERN.search(text):
        criteria = _limit_price(criteria, fresh, shown, cheaper=cheaper)
    elif _asks_for_better(text) and shown and fresh.price_min is None:
        criteria = _raise_minimum_price(criteria, shown[0])
    for pattern, keys, sign in FOLLOW_UPS:
        if pattern.search(text):
            criteria = _require_more(criteria, shown, keys, sign)
    return criteria


def _limit_price(criteria: Criteria, fresh: Criteria, shown: list[Product], *, cheaper: bool) -> Criteria:
    """Limit the price to below the cheapest, or above the most expensive, shown product; without any, sort by price.

    A limit of the follow-up itself is kept.
    """
    priced = [(product.price, product.currency) for product in shown if product.price is not None]
    if not priced:
        return criteria.model_copy(update={"sort_order": SortOrder.CHEAPEST if cheaper else SortOrder.MOST_EXPENSIVE})
    price, currency = (min if cheaper else max)(priced, key=lambda pair: pair[0])
    if fresh.currency not in {None, currency}:
        return criteria
    step = _price_step(price)
    low, high = (fresh.price_min, price - step) if cheaper else (price + step, fresh.price_max)
    is_stated = (fresh.price_max if cheaper else fresh.price_min) is not None
    if is_stated or (low is not None and high is not None and low > high):
        return criteria
    return criteria.model_copy(update={"price_min": low, "price_max": high, "currency": currency})


def _raise_minimum_price(criteria: Criteria, pick: Product) -> Criteria:
    """Require a higher price than that of the first pick, if the budget allows: better products cost more."""
    if pick.price is None or criteria.currency not in {None, pick.currency}:
        return criteria
    low = pick.price + _price_step(pick.price)
    if criteria.price_max is not None and low > criteria.price_max:
        return criteria
    return criteria.model_copy(update={"price_min": low, "currency": pick.currency})


def _price_step(price: Decimal) -> Decimal:
    return Decimal(1) if price >= MIN_WHOLE_STEP_PRICE else CENT


def _require_more(criteria: Criteria, shown: list[Product], keys: tuple[str, ...], sign: int) -> Criteria:
    """Require more (or less) than all shown products have, by the first of the attributes that they state."""
    for key in keys:
        values = [number for product in shown if (number := get_number(product, key)) is not None]
        if values:
            limit = {"minimum": max(values)} if sign > 0 else {"maximum": min(values)}
            bound = Bound(name=key, exclusive=True, **limit)
            kept = tuple(other for other in criteria.bounds if other.name != key)
            return criteria.model_copy(update={"bounds": (*kept, bound)})
    return criteria


MAX_EARLIER_QUESTIONS = 20

FOLLOW_UP_PATTERN = re.compile(
    r"^(?:and|or|but|also|only|with|without|in|under|over|below|above|not|no|within|between|from|what about|how about|"
    r"what if|make it|same|instead|show (?:me )?(?:more|other|another)|any(?:thing)? (?:else|cheaper|better|other))\b|"
    r"\b(?:instead|cheaper|dearer|pricier|less expensive|more expensive|ones?|those|these|them|others?|another|"
    r"too expensive|(?:big|bett|larg|light|small|fast|long|high|low)[a-z]{0,3}er)\b"
)
ADDING_PATTERN = re.compile(r"\b(?:also|too|as well)\b|^or\b")


def _has_model_term(criteria: Criteria) -> bool:
    return any(any(c.isdigit() for c in term) for term in criteria.terms)


def _is_same_kind(before: ParsedQuestion, new: ParsedQuestion) -> bool:
    if before.noun is None or new.noun is None:
        return before.noun is None
    return bool({*before.noun.kinds, *before.noun.categories} & {*new.noun.kinds, *new.noun.categories})


def _keep_terms(before: ParsedQuestion, fresh: Criteria) -> tuple[str, ...]:
    """Return the old terms that stay. Another brand or model replaces a model; a number only replaces its number."""
    terms = before.criteria.terms
    if fresh.terms and all(term.isdigit() for term in fresh.terms):
        return tuple(term for term in terms if not any(c.isdigit() for c in term))
    if fresh.brands or _has_model_term(fresh):
        return tuple(term for term in terms if term in before.droppable_terms)
    return terms


def _merge_price(old: Criteria, fresh: Criteria) -> dict[str, object]:
    """Return the new limits; an old one stays if it is in the same currency and does not contradict them."""
    if not fresh.has_price_limit:
        return {"price_min": old.price_min, "price_max": old.price_max, "currency": old.currency}
    low, high = fresh.price_min, fresh.price_max
    if old.currency == fresh.currency:
        if low is None and old.price_min is not None and old.price_min <= (high or 0):
            low = old.price_min
        if high is None and old.price_max is not None and old.price_max >= (low or 0):
            high = old.price_max
    return {"price_min": low, "price_max": high, "currency": fresh.currency}


FindShown = Callable[[ParsedQuestion], Awaitable[list[Product]]]
"""Finds the products that an earlier question recommended."""


async def read_follow_up(
    context: ConversationContext, question: str, names: VocabularyIndex, find_shown: FindShown
) -> ParsedQuestion:
    """Parse a question as a continuation of the conversation."""
    state: ParsedQuestion | None = None
    if context.last_product_criteria is not None:
        state = restore_question(context.last_product_criteria, names)
    else:
        texts = [message.text for message in context.messages if message.sender == "user"]
        if not texts and context.last_query:
            texts = [context.last_query]
        for text in texts[-MAX_EARLIER_QUESTIONS:]:
            parsed = await _read_next(state, text, names, find_shown)
            state = parsed if parsed.is_understood or _has_model_term(parsed.criteria) else state
    return await _read_next(state, question, names, find_shown)


async def _read_next(
    before: ParsedQuestion | None, text: str, names: VocabularyIndex, find_shown: FindShown
) -> ParsedQuestion:
    new = parse_question(text, names)
    if before is None:
        return new
    plain = remove_comparisons(new.text)
    if plain != new.text:
        new = replace(parse_question(plain, names), text=new.text)
    if not _is_follow_up(new):
        return new
    shown = await find_shown(before) if is_comparison(new.text) else []
    excluded: ProductKeys = frozenset()
    if asks_for_others(new.text):
        excluded = before.excluded_products | {product.key for product in shown}
    named = new.noun or new.criteria.brands or _has_model_term(new.criteria)
    alternatives = () if named else before.alternatives
    follow = [replace(before, criteria=one) for one in (before.criteria, *alternatives)]
    criteria, *others = [apply_comparison(merge_criteria(one, new), new.criteria, shown, new.text) for one in follow]
    return replace(
        new,
        criteria=criteria,
        alternatives=tuple(others) or new.alternatives,
        noun=new.noun or before.noun,
        droppable_terms=before.droppable_terms | new.droppable_terms,
        excluded_products=excluded,
    )


def restore_question(sent: ProductCriteria, names: VocabularyIndex) -> ParsedQuestion:
    """Restore a question from the criteria that a client sent back."""
    parts = [f"{sent.brand or ''} {sent.category or ''}".strip(), *sent.features]
    question = parse_question(", ".join(filter(None, parts)), names)
    update: dict[str, object] = {"marketplace": sent.marketplace or question.criteria.marketplace}
    if sent.price_range is not None:
        low, high = (
            None if limit is None else Decimal(str(limit)) for limit in (sent.price_range.min, sent.price_range.max)
        )
        if low is not None or high is not None:
            update |= {"price_min": low, "price_max": high, "currency": names.currency}
    return replace(question, criteria=question.criteria.model_copy(update=update))


def _is_follow_up(new: ParsedQuestion) -> bool:
    if new.off_topic and new.noun is None:
        return False
    criteria = new.criteria
    is_marked = FOLLOW_UP_PATTERN.search(new.text) is not None or asks_for_others(new.text)
    is_sorted = criteria.sort_order is not SortOrder.RELEVANCE
    names_product = new.noun is not None or _has_model_term(criteria)
    return is_marked or (not names_product and (new.is_understood or bool(criteria.preferences) or is_sorted))


def merge_criteria(before: ParsedQuestion, new: ParsedQuestion) -> Criteria:
    """Merge the criteria of a follow-up into the earlier ones; what it mentions replaces the old."""
    old, fresh = before.criteria, new.criteria
    update: dict[str, object] = _merge_price(old, fresh)
    if new.noun is not None and not _is_same_kind(before, new):
        # For another kind of product only the budget and the excluded brands stay.
        return fresh.model_copy(update=update | {"excluded_brands": old.excluded_brands + fresh.excluded_brands})
    excluded = tuple(dict.fromkeys([*old.excluded_brands, *fresh.excluded_brands]))
    adding = ADDING_PATTERN.search(new.text) is not None
    brands = (fresh.brands and (old.brands + fresh.brands if adding else fresh.brands)) or old.brands
    terms = (old.terms if adding else _keep_terms(before, fresh)) + fresh.terms
    features = tuple(f for f in old.features if f not in fresh.excluded_features)
    excluded_features = tuple(f for f in old.excluded_features if f not in fresh.features)
    update |= {
        "brands": tuple(b for b in dict.fromkeys(brands) if b not in fresh.excluded_brands),
        "excluded_brands": tuple(b for b in excluded if b not in fresh.brands),
        "bounds": tuple(b for b in old.bounds if b.name not in {f.name for f in fresh.bounds}) + fresh.bounds,
        "features": features + fresh.features,
        "excluded_features": excluded_features + fresh.excluded_features,
        "excluded_categories": tuple(dict.fromkeys([*old.excluded_categories, *fresh.excluded_categories])),
        "marketplace": fresh.marketplace or old.marketplace,
        "terms": tuple(dict.fromkeys(terms)),
        "preferences": tuple(dict.fromkeys([*old.preferences, *fresh.preferences])),
        "sort_order": fresh.sort_order if fresh.sort_order is not SortOrder.RELEVANCE else old.sort_order,
    }
    if fresh.categories:
        update |= {"categories": fresh.categories, "category_words": fresh.category_words}
    return old.model_copy(update=update)
