"""Follow-ups: a question read in the light of those before it.

A question with a kind of product of its own and no word of a follow-up starts afresh. Otherwise what it states takes
the place of what was stated before on the same matter, and the rest stays.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from shopassist.assistant.comparatives import asks_for_others, compared, compares, without_comparisons
from shopassist.assistant.grammar import Reading, read
from shopassist.assistant.names import Names
from shopassist.models.catalog import Product
from shopassist.models.criteria import Criteria, Feature, Order
from shopassist.models.query import ConversationContext, ProductCriteria

EARLIER = 20
"""Earlier questions that are read: a history grows without end, its beginning matters least."""

MARKER = re.compile(
    r"^(?:and|or|but|also|only|with|without|in|under|over|below|above|not|no|within|between|from|what about|how about|"
    r"what if|make it|same|instead|show (?:me )?(?:more|other|another)|any(?:thing)? (?:else|cheaper|better|other))\b|"
    r"\b(?:instead|cheaper|dearer|pricier|less expensive|more expensive|ones?|those|these|them|others?|another|"
    r"too expensive|(?:big|bett|larg|light|small|fast|long|high|low)[a-z]{0,3}er)\b"
)
ADDING = re.compile(r"\b(?:also|too|as well)\b|^or\b")
Shown = Callable[[Reading], Awaitable[list[Product]]]
"""Gives the products that were recommended for an earlier reading."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Reads questions after each other. `shown` repeats an earlier answer, for "cheaper" and "bigger"."""

    names: Names
    shown: Shown

    async def follow(self, context: ConversationContext, question: str) -> Reading:
        """`question` after what was said before."""
        state: Reading | None = None
        if context.last_product_criteria is not None:
            state = restored(context.last_product_criteria, self.names)
        else:
            texts = [message.text for message in context.messages if message.sender == "user"]
            if not texts and context.last_query:
                texts = [context.last_query]
            for text in texts[-EARLIER:]:
                reading = await self._next(state, text)
                state = reading if reading.understood or _names_model(reading.criteria) else state
        return await self._next(state, question)

    async def _next(self, before: Reading | None, text: str) -> Reading:
        new = read(text, self.names)
        if before is None:
            return new
        plain = without_comparisons(new.text)
        if plain != new.text:
            new = replace(read(plain, self.names), text=new.text)
        if not _follows(new):
            return new
        shown = await self.shown(before) if compares(new.text) else []
        again = asks_for_others(new.text)
        named = new.noun or new.criteria.brands or _names_model(new.criteria)
        alternatives = () if named else before.alternatives
        follow = [replace(before, criteria=one) for one in (before.criteria, *alternatives)]
        criteria, *others = [compared(merged(one, new), new.criteria, shown, new.text) for one in follow]
        return replace(
            new,
            criteria=criteria,
            alternatives=tuple(others) or new.alternatives,
            noun=new.noun or before.noun,
            loose=before.loose | new.loose,
            seen=before.seen | {(product.source, product.source_id) for product in shown} if again else frozenset(),
        )


def restored(sent: ProductCriteria, names: Names) -> Reading:
    """The reading behind criteria that a client sent back."""
    parts = [sent.category or "", *sent.features]
    text = ", ".join(part for part in [f"{sent.brand or ''} {parts[0]}".strip(), *parts[1:]] if part)
    reading = read(text, names)
    update: dict[str, object] = {"marketplace": sent.marketplace or reading.criteria.marketplace}
    if sent.price_range is not None and (sent.price_range.min is not None or sent.price_range.max is not None):
        low, high = sent.price_range.min, sent.price_range.max
        update |= {
            "price_min": Decimal(str(low)) if low is not None else None,
            "price_max": Decimal(str(high)) if high is not None else None,
            "currency": names.currency,
        }
    return replace(reading, criteria=reading.criteria.model_copy(update=update))


def _follows(new: Reading) -> bool:
    if new.off_topic and new.noun is None:
        return False
    marked = MARKER.search(new.text) is not None or asks_for_others(new.text)
    if new.noun is not None or _names_model(new.criteria):
        return marked
    return marked or new.understood or bool(new.criteria.wishes) or new.criteria.order is not Order.RELEVANCE


def _names_model(criteria: Criteria) -> bool:
    return any(any(c.isdigit() for c in term) for term in criteria.terms)


def merged(before: Reading, new: Reading) -> Criteria:
    """What holds after `new` was said: each matter that it mentions is replaced."""
    old, fresh = before.criteria, new.criteria
    update: dict[str, object] = _merged_price(old, fresh)
    if new.noun is not None and not _same_kind(before, new):
        # Another kind of product: memory and screens of the old one mean nothing there, the budget stays.
        return fresh.model_copy(update=update | {"excluded_brands": old.excluded_brands + fresh.excluded_brands})
    excluded = tuple(dict.fromkeys([*old.excluded_brands, *fresh.excluded_brands]))
    adding = ADDING.search(new.text) is not None
    brands = (fresh.brands and (old.brands + fresh.brands if adding else fresh.brands)) or old.brands
    terms = (old.terms if adding else _kept_terms(before, fresh)) + fresh.terms
    update |= {
        "brands": tuple(b for b in dict.fromkeys(brands) if b not in fresh.excluded_brands),
        "excluded_brands": tuple(b for b in excluded if b not in fresh.brands),
        "bounds": tuple(b for b in old.bounds if b.name not in {f.name for f in fresh.bounds}) + fresh.bounds,
        "features": _without(old.features, fresh.excluded_features) + fresh.features,
        "excluded_features": _without(old.excluded_features, fresh.features) + fresh.excluded_features,
        "excluded_categories": tuple(dict.fromkeys([*old.excluded_categories, *fresh.excluded_categories])),
        "marketplace": fresh.marketplace or old.marketplace,
        "terms": tuple(dict.fromkeys(terms)),
        "wishes": tuple(dict.fromkeys([*old.wishes, *fresh.wishes])),
        "order": fresh.order if fresh.order is not Order.RELEVANCE else old.order,
    }
    if fresh.categories:
        update |= {"categories": fresh.categories, "kind": fresh.kind}
    return old.model_copy(update=update)


def _same_kind(before: Reading, new: Reading) -> bool:
    if before.noun is None or new.noun is None:
        return before.noun is None
    return bool({*before.noun.kinds, *before.noun.categories} & {*new.noun.kinds, *new.noun.categories})


def _kept_terms(before: Reading, fresh: Criteria) -> tuple[str, ...]:
    """Another brand or model takes the place of the old model; a bare number only that of its number."""
    terms = before.criteria.terms
    if fresh.terms and all(term.isdigit() for term in fresh.terms):
        return tuple(term for term in terms if not any(c.isdigit() for c in term))
    if fresh.brands or _names_model(fresh):
        return tuple(term for term in terms if term in before.loose)
    return terms


def _without(kept: tuple[Feature, ...], gone: tuple[Feature, ...]) -> tuple[Feature, ...]:
    return tuple(feature for feature in kept if feature not in gone)


def _merged_price(old: Criteria, fresh: Criteria) -> dict[str, object]:
    """The new limits; an old one stays where it does not contradict them and is in the same currency."""
    low, high = fresh.price_min, fresh.price_max
    if low is None and high is None:
        return {"price_min": old.price_min, "price_max": old.price_max, "currency": old.currency}
    if old.currency == fresh.currency and low is None and old.price_min is not None and old.price_min <= (high or 0):
        low = old.price_min
    if old.currency == fresh.currency and high is None and old.price_max is not None and old.price_max >= (low or 0):
        high = old.price_max
    return {"price_min": low, "price_max": high, "currency": fresh.currency}
