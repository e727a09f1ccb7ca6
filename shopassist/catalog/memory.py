"""In-memory catalogue repository."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from shopassist.catalog import models
from shopassist.catalog.models import STORED_FIELDS, Criteria, Product, SortOrder, words_of
from shopassist.db.memory import MemoryRepository, copy_row


class MemoryCatalogRepository(MemoryRepository):
    """Implements `CatalogRepository`."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        matching = [product for product in self.store.table(Product).values() if not criteria.find_unmet(product)]
        phrases = [frozenset(words_of(phrase)) for phrase in (*criteria.terms, *criteria.preferences)]
        matching.sort(key=lambda p: (*_count_missing_phrases(p, phrases), *_get_sort_key(p, criteria.sort_order)))
        return [copy_row(product) for product in matching[:limit]]

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        known = {word for product in self.store.table(Product).values() for word in product.words}
        unknown = set(filter(models.is_correctable, words)) - known
        titles = [product.title for product in self.store.table(Product).values()] if unknown else []
        return {word: nearest for word in unknown if (nearest := models.find_nearest_word(word, titles))}

    async def upsert(self, products: Sequence[Product]) -> models.UpsertCount:
        count, stored_products = models.UpsertCount(), self.store.table(Product)
        for key, product in {product.key: product for product in products}.items():
            stored = stored_products.get(key)
            if stored is None:
                count.inserted += 1
                self.session.put(stored_products, key, copy_row(product, id=len(stored_products) + 1))
            elif any(getattr(stored, name) != getattr(product, name) for name in STORED_FIELDS):
                count.updated += 1
                kept = {"id": stored.id, "created_at": stored.created_at, "updated_at": self.store.now()}
                self.session.put(stored_products, key, copy_row(product, **kept))
            else:
                count.unchanged += 1
        return count

    async def count(self) -> int:
        return len(self.store.table(Product))

    async def get_vocabulary(self) -> models.Vocabulary:
        products = self.store.table(Product).values()
        return models.Vocabulary(
            categories=_list_spellings(product.category for product in products),
            brands=_list_spellings(product.brand for product in products),
            currencies=_list_spellings(product.currency for product in products),
        )


def _count_missing_phrases(product: Product, phrases: list[frozenset[str]]) -> tuple[int, int]:
    words = frozenset(product.words)
    title = frozenset(words_of(product.title)) if phrases else words
    return sum(not phrase <= words for phrase in phrases), sum(not phrase <= title for phrase in phrases)


def _get_sort_key(product: Product, order: SortOrder) -> tuple[Decimal, ...]:
    price, rating, count = product.price or Decimal(0), product.rating, product.rating_count
    if order is SortOrder.CHEAPEST:
        return (price,)
    if order is SortOrder.MOST_EXPENSIVE:
        return (-price,)
    return Decimal(1) if rating is None else -rating, Decimal(1 if count is None else -count)


def _list_spellings(names: Iterable[str | None]) -> tuple[str, ...]:
    by_key = {name.lower(): name for name in names if name}
    return tuple(by_key[key] for key in sorted(by_key))
