"""Pros and cons of a product, computed from the data of all products that fit."""

from collections.abc import Sequence
from decimal import Decimal

from shopassist.assistant.answering.wording import describe_attribute, format_number
from shopassist.catalog.attributes import COMPARED_ATTRIBUTES, ComparedAttribute
from shopassist.catalog.criteria import Criteria
from shopassist.catalog.currencies import format_money
from shopassist.catalog.models import Product

MAX_SENTENCES = 3
SHARED_BEST_MARK = "compared has"
NOTABLE_SAVING = Decimal("0.03")
Number = int | float | Decimal


class ProductComparison:
    """All products that fit beside each other; their figures are gathered once."""

    def __init__(self, fitting: Sequence[Product], shown: Sequence[Product], criteria: Criteria) -> None:
        """`fitting` are all products that meet `criteria`, `shown` those of them that are recommended."""
        asked = {bound.name for bound in criteria.bounds}
        self._aspects = sorted(COMPARED_ATTRIBUTES, key=lambda aspect: aspect.name not in asked)
        self._fitting = fitting
        self._shown = shown
        gathered = {id(product): _comparable_values(product) for product in (*fitting, *shown)}
        self._figures = gathered
        self._values = {
            aspect.name: [value for product in fitting if (value := gathered[id(product)].get(aspect.name)) is not None]
            for aspect in COMPARED_ATTRIBUTES
        }

    def pros(self, product: Product) -> list[str]:
        """One to three advantages over the other products that fit."""
        found = [sentence for aspect in self._aspects if (sentence := self._best(product, aspect))]
        found.sort(key=lambda sentence: SHARED_BEST_MARK in sentence)
        found = [*self._price_pros(product), *found][:MAX_SENTENCES]
        if found:
            return found
        if len(self._fitting) == 1:
            return ["The only product in the catalogue that fits"]
        return ["Meets everything you asked for"]

    def cons(self, product: Product) -> list[str]:
        """One to three drawbacks beside the other recommended products and all that fit."""
        found = self._price_cons(product)
        found += [sentence for aspect in self._aspects if (sentence := self._lacking(product, aspect))]
        found = found[: MAX_SENTENCES - 1]
        found += describe_price_age(product)
        if not found and product.rating is None:
            found.append("No customer rating is known")
        return found or ["No drawback stands out in its data"]

    def _best(self, product: Product, aspect: ComparedAttribute) -> str:
        mine, values = self._figures[id(product)].get(aspect.name), self._values[aspect.name]
        if mine is None or not values or len(set(values)) == 1:
            return ""
        if mine != (max(values) if aspect.sign > 0 else min(values)):
            return ""
        shown = f"{format_number(mine)} of 5" if aspect.name == "rating" else describe_attribute(aspect.name, mine)
        if values.count(mine) == 1:
            return f"{aspect.best} of the {len(values)} compared ({shown})"
        return f"{shown}: none of the {len(values)} {SHARED_BEST_MARK} {'more' if aspect.sign > 0 else 'less'}"

    def _lacking(self, product: Product, aspect: ComparedAttribute) -> str:
        mine = self._figures[id(product)].get(aspect.name)
        if mine is None:
            return ""
        others = [
            (_to_decimal(value) * aspect.sign, other)
            for other in self._shown
            if (value := self._figures[id(other)].get(aspect.name)) is not None
        ]
        ahead, other = max(others, key=lambda pair: pair[0], default=(Decimal(0), product))
        lead = ahead - _to_decimal(mine) * aspect.sign
        return f"{aspect.lack.format(format_number(lead))} than {other.title}" if others and lead > 0 else ""

    def _prices(self, product: Product) -> list[Decimal]:
        return [p.price for p in self._fitting if p.price is not None and p.currency == product.currency]

    def _price_pros(self, product: Product) -> list[str]:
        prices = self._prices(product)
        if product.price is None or product.currency is None or len(set(prices)) <= 1:
            return []
        if product.price == min(prices):
            return [f"Lowest price of the {len(prices)} compared"]
        average = sum(prices, Decimal(0)) / len(prices)
        saving = (average - product.price).quantize(Decimal(1) if product.currency == "INR" else Decimal("0.01"))
        if saving < average * NOTABLE_SAVING:
            return []
        return [f"{format_money(saving, product.currency)} below the average of the {len(prices)} compared"]

    def _price_cons(self, product: Product) -> list[str]:
        lowest = min(self._prices(product), default=product.price)
        if product.price is None or product.currency is None or lowest is None or product.price <= lowest:
            return []
        return [f"{format_money(product.price - lowest, product.currency)} more than the cheapest that fits"]


def describe_price_age(product: Product) -> list[str]:
    """The drawback that a price is old, which holds whether a product fits or not."""
    return [f"Price is indicative, as of {product.price_as_of:%B %Y}"] if product.price_as_of is not None else []


def _comparable_values(product: Product) -> dict[str, Number]:
    facts = {**product.attributes, "rating": product.rating}
    return {
        aspect.name: value
        for aspect in COMPARED_ATTRIBUTES
        if isinstance(value := facts.get(aspect.name), Number) and not isinstance(value, bool)
    }


def _to_decimal(value: Number) -> Decimal:
    return Decimal(str(value))
