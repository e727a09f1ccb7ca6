"""What keeps a product from meeting the criteria, in words for the shopper."""

from shopassist.assistant.describe import RATINGS, bound_words, price_words
from shopassist.assistant.facts import figure, number
from shopassist.assistant.money import money
from shopassist.assistant.names import Names
from shopassist.models.catalog import Product
from shopassist.models.criteria import Bound, Criteria, number_of


def miss_words(product: Product, criteria: Criteria, names: Names) -> list[str]:
    """What `product` misses, in words for the shopper."""
    bounds = {bound.name: bound for bound in criteria.bounds if not bound.holds(number_of(product, bound.name))}
    words = []
    for name in dict.fromkeys(criteria.misses(product)):
        if name == "price" and product.currency != criteria.currency:
            continue
        if name in bounds:
            words.append(_bound_miss(product, bounds[name]))
        else:
            words.append(_other_miss(product, criteria, name, names))
    return words


def _bound_miss(product: Product, bound: Bound) -> str:
    value = number_of(product, bound.name)
    if value is None or isinstance(value, bool | str):
        return {"rating": "rating is not known", "rating_count": "number of reviews is not known"}.get(
            bound.name, f"{bound_words(bound)} is not confirmed in its data"
        )
    shown = number(value) if bound.name in RATINGS else figure(bound.name, value)
    return f"{shown} instead of {bound_words(bound)}"


def _other_miss(product: Product, criteria: Criteria, name: str, names: Names) -> str:
    wanted = " or ".join(names.spelling.get(brand, brand) for brand in criteria.brands)
    known = {
        "price": _price_miss(product, criteria),
        "currency": f"{_priced(product)}, which is not compared with {price_words(criteria)}",
        "brand": f"made by {product.brand or 'an unnamed maker'}" + (f" instead of {wanted}" if wanted else ""),
        "category": f"it is filed under {product.category or 'no category'}",
        "marketplace": f"not sold on {criteria.marketplace}",
    }
    if name.startswith("without "):
        return f"has {name.removeprefix('without ')}"
    return known.get(name, f"{name} is not stated")


def _priced(product: Product) -> str:
    if product.price is None or product.currency is None:
        return "price is not known"
    return f"priced in {product.currency} ({money(product.price, product.currency)})"


def _price_miss(product: Product, criteria: Criteria) -> str:
    if product.price is None or product.currency is None:
        return "price is not known"
    price = money(product.price, product.currency)
    if criteria.price_max is not None and product.price > criteria.price_max:
        return f"{price}, which is {money(product.price - criteria.price_max, product.currency)} over the limit"
    if criteria.price_min is not None and product.price < criteria.price_min:
        return f"{price}, which is {money(criteria.price_min - product.price, product.currency)} below the range"
    return f"{price} does not fit"
