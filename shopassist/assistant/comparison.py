"""Pros and cons: what sets a product apart from the others that fit. Every sentence is computed from their data."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from shopassist.assistant.facts import figure, number
from shopassist.assistant.money import money
from shopassist.models.catalog import Product
from shopassist.models.criteria import Criteria

MOST = 3
SHARED = "compared has"
NOTABLE_SAVING = Decimal("0.03")
Number = int | float | Decimal


@dataclass(frozen=True, slots=True)
class Aspect:
    """A figure that products are compared by: how the best is called, what a lack of it is called."""

    name: str
    best: str
    lack: str
    sign: int = 1


ASPECTS = (
    Aspect("ram_gb", "Most RAM", "{} GB less RAM"),
    Aspect("storage_gb", "Most storage", "{} GB less storage"),
    Aspect("battery_mah", "Largest battery", "{} mAh less battery"),
    Aspect("capacity_mah", "Largest capacity", "{} mAh less capacity"),
    Aspect("battery_hours", "Longest battery life", "{} hours less battery life"),
    Aspect("main_camera_mp", "Highest camera resolution", "{} MP less camera resolution"),
    Aspect("refresh_rate_hz", "Highest refresh rate", "{} Hz lower refresh rate"),
    Aspect("charging_watts", "Fastest charging", "{} W slower charging"),
    Aspect("output_watts", "Most powerful sound", "{} W less sound"),
    Aspect("capacity_litres", "Largest capacity", "{} litres less capacity"),
    Aspect("read_speed_mb_s", "Fastest reading", "{} MB/s slower reading"),
    Aspect("weight_g", "Lightest", "{} g heavier", -1),
    Aspect("rating", "Best rated", "{} stars lower rating"),
)


class Comparison:
    """All products that fit beside each other; their figures are gathered once."""

    def __init__(self, fitting: Sequence[Product], shown: Sequence[Product], criteria: Criteria) -> None:
        """`fitting` are all products that meet `criteria`, `shown` those of them that are recommended."""
        asked = {bound.name for bound in criteria.bounds}
        self._aspects = sorted(ASPECTS, key=lambda aspect: aspect.name not in asked)
        self._fitting = fitting
        self._shown = shown
        gathered = {id(product): _figures(product) for product in (*fitting, *shown)}
        self._figures = gathered
        self._values = {
            aspect.name: [value for product in fitting if (value := gathered[id(product)].get(aspect.name)) is not None]
            for aspect in ASPECTS
        }

    def pros(self, product: Product) -> list[str]:
        """One to three advantages over the other products that fit."""
        found = [sentence for aspect in self._aspects if (sentence := self._best(product, aspect))]
        found.sort(key=lambda sentence: SHARED in sentence)
        found = [*self._price_pros(product), *found][:MOST]
        if found:
            return found
        if len(self._fitting) == 1:
            return ["The only product in the catalogue that fits"]
        return ["Meets everything you asked for"]

    def cons(self, product: Product) -> list[str]:
        """One to three drawbacks beside the other recommended products and all that fit."""
        found = self._price_cons(product)
        found += [sentence for aspect in self._aspects if (sentence := self._lacking(product, aspect))]
        found = found[: MOST - 1]
        found += dated_price(product)
        if not found and product.rating is None:
            found.append("No customer rating is known")
        return found or ["No drawback stands out in its data"]

    def _best(self, product: Product, aspect: Aspect) -> str:
        mine, values = self._figures[id(product)].get(aspect.name), self._values[aspect.name]
        if mine is None or not values or len(set(values)) == 1:
            return ""
        if mine != (max(values) if aspect.sign > 0 else min(values)):
            return ""
        shown = f"{number(mine)} of 5" if aspect.name == "rating" else figure(aspect.name, mine)
        if values.count(mine) == 1:
            return f"{aspect.best} of the {len(values)} compared ({shown})"
        return f"{shown}: none of the {len(values)} {SHARED} {'more' if aspect.sign > 0 else 'less'}"

    def _lacking(self, product: Product, aspect: Aspect) -> str:
        mine = self._figures[id(product)].get(aspect.name)
        if mine is None:
            return ""
        others = [
            (_decimal(value) * aspect.sign, other)
            for other in self._shown
            if (value := self._figures[id(other)].get(aspect.name)) is not None
        ]
        ahead, other = max(others, key=lambda pair: pair[0], default=(Decimal(0), product))
        lead = ahead - _decimal(mine) * aspect.sign
        return f"{aspect.lack.format(number(lead))} than {other.title}" if others and lead > 0 else ""

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
        return [f"{money(saving, product.currency)} below the average of the {len(prices)} compared"]

    def _price_cons(self, product: Product) -> list[str]:
        lowest = min(self._prices(product), default=product.price)
        if product.price is None or product.currency is None or lowest is None or product.price <= lowest:
            return []
        return [f"{money(product.price - lowest, product.currency)} more than the cheapest that fits"]


def dated_price(product: Product) -> list[str]:
    """The drawback that a price is old, which holds whether a product fits or not."""
    return [f"Price is indicative, as of {product.price_as_of:%B %Y}"] if product.price_as_of is not None else []


def _figures(product: Product) -> dict[str, Number]:
    facts = {**product.attributes, "rating": product.rating}
    return {
        aspect.name: value
        for aspect in ASPECTS
        if isinstance(value := facts.get(aspect.name), Number) and not isinstance(value, bool)
    }


def _decimal(value: Number) -> Decimal:
    return Decimal(str(value))
