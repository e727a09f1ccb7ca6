"""Fixtures of the assistant: a catalogue in a list, filtered by `Criteria.find_unmet`."""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.catalog.models import Criteria, Product, Vocabulary, build_product_words, find_nearest_word
from shopassist.db.ports import Result
from shopassist.query.models import Answer, ConversationContext, ConversationMessage
from shopassist.settings import AssistantSettings

SAMPLE = Path(__file__).parents[2] / "shopassist" / "data" / "sample-catalogue.jsonl"
FIELDS = ("rating", "rating_count", "price_as_of")


class ListCatalog:
    """Implements the reading part of `CatalogRepository` and the transactions around it, and counts its calls."""

    def __init__(self, products: Iterable[Product]) -> None:
        self.products = list(products)
        self.searches = 0
        self.vocabularies = 0

    @property
    def catalog(self) -> Self:
        """Itself, as the only repository."""
        return self

    async def run(
        self, body: Callable[[Any], Awaitable[Result]], happened: Any = None, repeatable: bool = False
    ) -> Result:
        """Run `body` without a transaction."""
        return await body(self)

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        self.searches += 1
        return [product for product in self.products if not criteria.find_unmet(product)][:limit]

    async def get_vocabulary(self) -> Vocabulary:
        self.vocabularies += 1
        return Vocabulary(
            categories=_distinct(product.category for product in self.products),
            brands=_distinct(product.brand for product in self.products),
            currencies=_distinct(product.currency for product in self.products),
        )

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        titles = [product.title for product in self.products]
        return {word: nearest for word in words if (nearest := find_nearest_word(word, titles))}


def _distinct(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name}))


def make_product(title: str, **facts: Any) -> Product:
    """Build a product; `price` is text."""
    attributes = facts.get("attributes", {})
    words = build_product_words(title, facts.get("brand"), facts.get("category"), facts.get("description"), attributes)
    price = facts.get("price", "100")
    return Product(
        source="test",
        source_id=facts.get("source_id", title),
        title=title,
        brand=facts.get("brand"),
        category=facts.get("category"),
        description=facts.get("description"),
        price=Decimal(price) if price is not None else None,
        currency=facts.get("currency", "INR") if price is not None else None,
        attributes=attributes,
        link=facts.get("link", "https://www.amazon.in/dp/B0TEST"),
        words=words,
        **{name: facts[name] for name in FIELDS if name in facts},
    )


@pytest.fixture(scope="session")
def product() -> Callable[..., Product]:
    """Return the function that builds products."""
    return make_product


@pytest.fixture(scope="session")
def sample_products() -> list[Product]:
    """Return the products of the sample."""
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE.name} is missing")
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines() if line]
    for row in rows:
        row["price_as_of"] = date.fromisoformat(row["price_as_of"]) if row.get("price_as_of") else None
    return [make_product(row.pop("title"), **row) for row in rows]


@pytest.fixture
def sample(sample_products: list[Product]) -> ListCatalog:
    """Return a catalogue of the sample."""
    return ListCatalog(sample_products)


@pytest.fixture(scope="session")
def names() -> VocabularyIndex:
    """Return a fixed vocabulary similar to that of the sample."""
    return VocabularyIndex(
        Vocabulary(
            categories=(
                "cameras", "earbuds", "feature phones", "gaming consoles", "headphones", "keyboards", "laptops", "mice",
                "monitors", "phone cases", "power banks", "printers", "smartphones", "smartwatches", "speakers",
                "storage", "tablets", "televisions",
            ),
            brands=(
                "Apple", "Anker", "boAt", "Dell", "Fire-Boltt", "Google", "HP", "Intel", "JBL", "LG", "Logitech",
                "Motorola", "Nintendo", "Noise", "Nothing", "OnePlus", "Redmi", "Samsung", "Sony", "vivo", "Xiaomi",
            ),
            currencies=("INR",),
        ),
        "INR",
    )  # fmt: skip


@pytest.fixture
def asking() -> Callable[[ListCatalog], CatalogAssistant]:
    """Return a function that builds an assistant with an affiliate tag."""

    def build(catalog: ListCatalog) -> CatalogAssistant:
        return CatalogAssistant(catalog, AssistantSettings(affiliate_tag="shop-21"))

    return build


@pytest.fixture
def conversation(asking: Callable[[ListCatalog], CatalogAssistant]) -> Callable[..., Any]:
    """Return a function that asks questions in one conversation and returns the last answer."""

    async def talk(catalog: ListCatalog, *questions: str) -> Answer:
        assistant, messages = asking(catalog), list[ConversationMessage]()
        answer = Answer(recommendations_summary="")
        for question in questions:
            answer = await assistant.answer(question, ConversationContext(messages=list(messages)))
            messages.append(ConversationMessage(text=question, sender="user"))
            messages.append(ConversationMessage(text=answer.recommendations_summary, sender="system"))
        return answer

    return talk


@pytest.fixture(scope="session")
def make_catalog() -> Callable[[Iterable[Product]], ListCatalog]:
    """Return the function that builds catalogues."""
    return ListCatalog
