"""Pros and cons of a product, computed from the data of all products that meet the criteria."""

from collections.abc import Sequence
from decimal import Decimal

from shopassist.assistant.answering.wording import describe_attribute, format_number
from shopassist.catalog.attribute_types import Attribute, Comparison
from shopassist.catalog.attributes import COMPARED
from shopassist.catalog.criteria import Criteria, get_numeric_value
from shopassist.catalog.currencies import find_currency, format_money
from shopassist.catalog.models import Product

MAX_SENTENCES = 3
SHARED_BEST_MARK = "compared has"
NOTABLE_SAVING = Decimal("0.03")
Number = int | float | Decimal


class ProductComparison:
    """Compares the recommended products `shown` with each other and with all products `fitting` the criteria."""

    def __init__(self, fitting: Sequence[Product], shown: Sequence[Product], criteria: Criteria) -> None:
        limited = {bound.name for bound in criteria.bounds}
        self._compared = sorted(COMPARED, key=lambda compared: compared[0].key not in limited)
        self._fitting = fitting
        self._shown = shown
        self._values = {id(product): _get_compared_values(product) for product in (*fitting, *shown)}
        self._fitting_values = {
            row.key: [value for p in fitting if (value := self._values[id(p)].get(row.key)) is not None]
            for row, _ in COMPARED
        }

    def list_pros(self, product: Product) -> list[str]:
        """Return one to three advantages over the other products that fit."""
        pros = [text for row, comparison in self._compared if (text := self._describe_pro(product, row, comparison))]
        pros.sort(key=lambda text: SHARED_BEST_MARK in text)
        pros = [*self._list_price_pros(product), *pros][:MAX_SENTENCES]
        if pros:
            return pros
        only = len(self._fitting) == 1
        return ["The only product in the catalogue that fits" if only else "Meets everything you asked for"]

    def list_cons(self, product: Product) -> list[str]:
        """Return one to three drawbacks beside the other recommended products and all that fit."""
        cons = self._list_price_cons(product)
        cons += [text for row, comparison in self._compared if (text := self._describe_con(product, row, comparison))]
        cons = cons[: MAX_SENTENCES - 1]
        cons += describe_price_age(product)
        if not cons and product.rating is None:
            cons.append("No customer rating is known")
        return cons or ["No drawback stands out in its data"]

    def _describe_pro(self, product: Product, row: Attribute, comparison: Comparison) -> str:
        value, values = self._values[id(product)].get(row.key), self._fitting_values[row.key]
        if value is None or len(set(values)) <= 1 or value != (max if row.direction > 0 else min)(values):
            return ""
        fact = comparison.fact.format(format_number(value)) or describe_attribute(row.key, value)
        if values.count(value) == 1:
            return f"{comparison.advantage} of the {len(values)} compared ({fact})"
        return f"{fact}: none of the {len(values)} {SHARED_BEST_MARK} {'more' if row.direction > 0 else 'less'}"

    def _describe_con(self, product: Product, row: Attribute, comparison: Comparison) -> str:
        value = self._values[id(product)].get(row.key)
        if value is None:
            return ""
        others = [
            (_to_decimal(number) * row.direction, other)
            for other in self._shown
            if (number := self._values[id(other)].get(row.key)) is not None
        ]
        best, other = max(others, key=lambda pair: pair[0], default=(Decimal(0), product))
        lead = best - _to_decimal(value) * row.direction
        if not others or lead <= 0:
            return ""
        return f"{comparison.drawback.format(format_number(lead))} than {other.title}"

    def _get_comparable_prices(self, product: Product) -> list[Decimal]:
        return [p.price for p in self._fitting if p.price is not None and p.currency == product.currency]

    def _list_price_pros(self, product: Product) -> list[str]:
        prices = self._get_comparable_prices(product)
        if product.price is None or product.currency is None or len(set(prices)) <= 1:
            return []
        if product.price == min(prices):
            return [f"Lowest price of the {len(prices)} compared"]
        average = sum(prices, Decimal(0)) / len(prices)
        saving = (average - product.price).quantize(find_currency(product.currency).smallest_unit)
        if saving < average * NOTABLE_SAVING:
            return []
        return [f"{format_money(saving, product.currency)} below the average of the {len(prices)} compared"]

    def _list_price_cons(self, product: Product) -> list[str]:
        lowest = min(self._get_comparable_prices(product), default=product.price)
        if product.price is None or product.currency is None or lowest is None or product.price <= lowest:
            return []
        return [f"{format_money(product.price - lowest, product.currency)} more than the cheapest that fits"]


def describe_price_age(product: Product) -> list[str]:
    """Return the drawback that a price is old; it holds whether or not a product meets the criteria."""
    return [f"Price is indicative, as of {product.price_as_of:%B %Y}"] if product.price_as_of is not None else []


def _get_compared_values(product: Product) -> dict[str, Number]:
    values = ((row.key, get_numeric_value(product, row.key)) for row, _ in COMPARED)
    return {key: value for key, value in values if isinstance(value, Number) and not isinstance(value, bool)}


def _to_decimal(value: Number) -> Decimal:
    return Decimal(str(value))
