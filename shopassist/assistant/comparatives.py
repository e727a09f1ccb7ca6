"""What a follow-up asks for beside what was shown: cheaper, bigger, better, or simply others."""

import re
from decimal import Decimal

from shopassist.models.catalog import Product
from shopassist.models.criteria import Bound, Criteria, Order, number_of

CENT = Decimal("0.01")
WHOLE_STEPS_FROM = 100
CHEAPER = re.compile(
    r"\b(?:cheaper|less expensive|lower price[ds]?|lower budget|too expensive|costs? less|less costly)\b"
)
DEARER = re.compile(r"\b(?:dearer|pricier|more expensive|costlier)\b")
BETTER = re.compile(
    r"\b(?:(?<!\bor )(?<!\band )better(?! (?:than|rat|review))|nicer|superior|upgrade|higher[- ]end|more premium)\b"
)
OTHERS = re.compile(
    r"\b(?:(?:any|some)thing (?:else|different)|what else|(?:any |some |the )?(?:other|another|different|more) "
    r"(?:one|option|choice|suggestion|result|recommendation|alternative)s?|"
    r"(?:show|see|give|tell)(?: me)? (?:some |any )?(?:more|others?|another)(?= please|[.!?]|$))"
)
COMPARATIVES = (
    (re.compile(r"\b(?:bigger|larger|better|longer|more)\s(?:capacity )?battery\b"),
     ("battery_mah", "battery_hours", "capacity_mah"), 1),
    (re.compile(r"\b(?:better|higher)\s(?:resolution )?camera\b"), ("main_camera_mp",), 1),
    (re.compile(r"\bmore (?:ram|memory)\b"), ("ram_gb",), 1),
    (re.compile(r"\b(?:more|bigger|larger) storage\b"), ("storage_gb",), 1),
    (re.compile(r"\b(?:bigger|larger) (?:screen|display|one)s?\b|^bigger$"), ("screen_inches",), 1),
    (re.compile(r"\bsmaller (?:screen|display|one)s?\b|^smaller$"), ("screen_inches",), -1),
    (re.compile(r"\blighter\b"), ("weight_g",), -1),
    (re.compile(r"\bfaster charging\b"), ("charging_watts",), 1),
)  # fmt: skip


def without_comparisons(text: str) -> str:
    """The rest of a follow-up, so that the battery of "bigger battery" is not taken for the product."""
    for pattern in (CHEAPER, DEARER, *(pattern for pattern, _, _ in COMPARATIVES), OTHERS):
        text = pattern.sub(" ", text)
    return text


def compares(text: str) -> bool:
    """Whether the answer depends on what was shown before."""
    figures = any(pattern.search(text) for pattern, _, _ in COMPARATIVES)
    return figures or asks_for_others(text) or bool(CHEAPER.search(text) or DEARER.search(text))


def asks_for_others(text: str) -> bool:
    """Whether what was shown before is not to be shown again."""
    return bool(OTHERS.search(text)) or _better(text)


def _better(text: str) -> bool:
    for pattern, _, _ in COMPARATIVES:
        text = pattern.sub(" ", text)
    return BETTER.search(text) is not None


def compared(criteria: Criteria, fresh: Criteria, shown: list[Product], text: str) -> Criteria:
    """`criteria` with the limits that a comparison with `shown` means; `fresh` is what the follow-up itself states."""
    cheaper = CHEAPER.search(text) is not None
    if cheaper or DEARER.search(text):
        criteria = _priced(criteria, fresh, shown, cheaper=cheaper)
    elif _better(text) and shown and fresh.price_min is None:
        criteria = _upgraded(criteria, shown[0])
    for pattern, keys, sign in COMPARATIVES:
        if pattern.search(text):
            criteria = _exceeding(criteria, shown, keys, sign)
    return criteria


def _priced(criteria: Criteria, fresh: Criteria, shown: list[Product], *, cheaper: bool) -> Criteria:
    """Below the cheapest, or above the dearest, of what was shown; without any, an order by price.

    A limit that the follow-up states itself stands.
    """
    priced = [(product.price, product.currency) for product in shown if product.price is not None]
    if not priced:
        return criteria.model_copy(update={"order": Order.CHEAPEST if cheaper else Order.DEAREST})
    price, currency = (min if cheaper else max)(priced, key=lambda pair: pair[0])
    low, high = (fresh.price_min, price - _step(price)) if cheaper else (price + _step(price), fresh.price_max)
    if (fresh.price_max if cheaper else fresh.price_min) is not None or fresh.currency not in {None, currency}:
        return criteria
    if low is not None and high is not None and low > high:
        return criteria
    return criteria.model_copy(update={"price_min": low, "price_max": high, "currency": currency})


def _upgraded(criteria: Criteria, pick: Product) -> Criteria:
    """Dearer than the first pick, as far as the budget allows: what is better beyond the figures costs more."""
    if pick.price is None or criteria.currency not in {None, pick.currency}:
        return criteria
    low = pick.price + _step(pick.price)
    if criteria.price_max is not None and low > criteria.price_max:
        return criteria
    return criteria.model_copy(update={"price_min": low, "currency": pick.currency})


def _step(price: Decimal) -> Decimal:
    return Decimal(1) if price >= WHOLE_STEPS_FROM else CENT


def _exceeding(criteria: Criteria, shown: list[Product], keys: tuple[str, ...], sign: int) -> Criteria:
    """With more (or less) than any of what was shown, by the first of `keys` that it states."""
    for key in keys:
        numbers = [number_of(product, key) for product in shown]
        values = [Decimal(str(n)) for n in numbers if isinstance(n, int | float | Decimal) and not isinstance(n, bool)]
        if values:
            limit = {"minimum": max(values)} if sign > 0 else {"maximum": min(values)}
            bound = Bound(name=key, exclusive=True, **limit)
            kept = tuple(other for other in criteria.bounds if other.name != key)
            return criteria.model_copy(update={"bounds": (*kept, bound)})
    return criteria
