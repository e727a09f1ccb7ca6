"""Products to put into a catalogue."""

from decimal import Decimal
from typing import Any

from shopassist.catalog.models import Product, build_product_words


def product(source_id: str, title: str = "Thing", **facts: Any) -> Product:
    """Build a product at 100 USD, changed by `facts`."""
    values: dict[str, Any] = {"brand": None, "category": None, "description": None, "attributes": {}} | facts
    words = build_product_words(title, values["brand"], values["category"], values["description"], values["attributes"])
    defaults = {"source": "test", "price": Decimal(100), "currency": "USD", "link": "https://www.amazon.com/s?k=x"}
    return Product(**{**defaults, **values, "source_id": source_id, "title": title, "words": words})
