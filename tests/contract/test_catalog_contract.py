"""Contract of `CatalogRepository`, tested with both implementations."""

from decimal import Decimal
from typing import Any

from shopassist.catalog.models import Bound, Criteria, SortOrder, UpsertCount
from shopassist.catalog.ports import CatalogRepository
from tests.support.catalog_examples import product


async def found(catalog: CatalogRepository, limit: int = 60, **criteria: Any) -> list[str]:
    """Return the ids of the products found, in order."""
    return [product.source_id for product in await catalog.search(Criteria(**criteria), limit)]


async def corrected(catalog: CatalogRepository, words: list[str]) -> dict[str, str]:
    """Return the corrections of `words`."""
    return await catalog.find_corrections(words)


async def test_upsert_counts_rows(catalog: CatalogRepository) -> None:
    """Inserted, updated and unchanged products are counted, and the last of a repeated key counts."""
    assert await catalog.upsert([product("1"), product("2")]) == UpsertCount(inserted=2)
    assert await catalog.upsert([product("1"), product("2", rating=Decimal("4.50")), product("3")]) == UpsertCount(
        inserted=1, updated=1, unchanged=1
    )
    assert await catalog.upsert([product("4", "First"), product("4", "Last")]) == UpsertCount(inserted=1)
    assert [hit.title for hit in await catalog.search(Criteria(terms=("last",)))] == ["Last"]
    assert await catalog.upsert([]) == UpsertCount()
    assert await catalog.count() == 4


async def test_products_are_stored_exactly(catalog: CatalogRepository) -> None:
    """Every public field is kept: prices as exact decimals, attributes with their JSON types."""
    given_product = product(
        "1",
        "Phone ₹",
        brand="Ünïted",
        category="smartphones",
        description="d",
        price=Decimal("11999.90"),
        currency="INR",
        rating=Decimal("4.25"),
        rating_count=7,
        attributes={"ram_gb": 8, "screen_inches": 6.7, "bluetooth": True, "network": "5G"},
    )
    await catalog.upsert([given_product])
    [stored] = await catalog.search(Criteria())
    assert stored.model_dump(mode="json") == given_product.model_dump(mode="json")
    assert stored.words == given_product.words


async def test_vocabulary_is_spelled_as_in_the_catalogue(catalog: CatalogRepository) -> None:
    """Each name is listed once regardless of case; missing names are not listed."""
    await catalog.upsert(
        [
            product("1", brand="OnePlus", category="smartphones"),
            product("2", brand="boAt", category="earbuds", currency="INR"),
            product("3", brand="OnePlus", category="smartphones"),
            product("4"),
        ]
    )
    vocabulary = await catalog.get_vocabulary()
    assert set(vocabulary.brands) == {"OnePlus", "boAt"}
    assert set(vocabulary.categories) == {"smartphones", "earbuds"}
    assert set(vocabulary.currencies) == {"USD", "INR"}


async def test_empty_catalogue(catalog: CatalogRepository) -> None:
    """Nothing is found and nothing fails."""
    assert await found(catalog, terms=("phone",), preferences=("good",)) == []
    assert await catalog.count() == 0
    assert (await catalog.get_vocabulary()).brands == ()
    assert await corrected(catalog, ["lapto"]) == {}


async def test_products_without_a_price_are_not_found(catalog: CatalogRepository) -> None:
    """A product without a price cannot be recommended."""
    await catalog.upsert([product("1", price=None, currency=None)])
    assert await found(catalog) == []


async def test_preferences_only_rank(catalog: CatalogRepository) -> None:
    """Products with more preferences come first; those without any are found too."""
    await catalog.upsert([product("0", "Bag"), product("1", "Red mouse"), product("2", "Red gaming mouse")])
    assert await found(catalog, preferences=("gaming", "mice", "mouse")) == ["2", "1", "0"]


async def test_all_terms_are_required(catalog: CatalogRepository) -> None:
    """Plurals, case, accents and hyphens do not matter; a missing word does."""
    await catalog.upsert([product("1", "Café TN-2110 cases"), product("2", "Cafe TN-2120 case")])
    assert await found(catalog, terms=("CAFÉ", "Case", "tn-2110")) == ["1"]


async def test_sort_orders(catalog: CatalogRepository) -> None:
    """The cheapest, most expensive or best rated come first on request, unrated products last."""
    await catalog.upsert(
        [
            product("1", price=Decimal(30), rating=Decimal(4)),
            product("2", price=Decimal(10), rating=Decimal(5)),
            product("3", price=Decimal(20)),
        ]
    )
    assert await found(catalog, sort_order=SortOrder.CHEAPEST) == ["2", "3", "1"]
    assert await found(catalog, sort_order=SortOrder.MOST_EXPENSIVE) == ["1", "3", "2"]
    assert await found(catalog, sort_order=SortOrder.BEST_RATED) == ["2", "1", "3"]
    assert await found(catalog, limit=1, sort_order=SortOrder.CHEAPEST) == ["2"]


async def test_misspelt_words_are_corrected(catalog: CatalogRepository) -> None:
    """A word that no product has becomes the nearest word of a title; model numbers and other words stay."""
    await catalog.upsert([product("1", "Samsung Galaxy laptop"), product("2", "Brother TN2110 toner")])
    words = ["samsng", "lapto", "galaxy", "tn2111", "xyzzyq"]
    assert await corrected(catalog, words) == {"samsng": "samsung", "lapto": "laptop"}


async def test_non_numeric_attributes_meet_no_bound(catalog: CatalogRepository) -> None:
    """Text, booleans and missing values neither match nor fail."""
    values = ["16", True, "many", None, [16], {"n": 16}, 16]
    await catalog.upsert([product(str(n), attributes={"ram_gb": value}) for n, value in enumerate(values)])
    assert await found(catalog, bounds=(Bound(name="ram_gb", minimum=Decimal(8)),)) == ["6"]
    assert await found(catalog, bounds=(Bound(name="ram_gb"),)) == ["6"]
    assert await found(catalog, bounds=(Bound(name="ram_gb", minimum=Decimal(16), exclusive=True),)) == []


async def test_hostile_names_are_only_compared(catalog: CatalogRepository) -> None:
    """SQL, paths and patterns in criteria are compared, never executed."""
    await catalog.upsert([product("1", brand="x' OR '1'='1", attributes={"a'b\"$.[*]": 3})])
    assert await found(catalog, brands=("' or '1'='1",)) == []
    assert await found(catalog, brands=("x' or '1'='1",)) == ["1"]
    assert await found(catalog, bounds=(Bound(name="a'b\"$.[*]", minimum=Decimal(3)),)) == ["1"]
    assert await found(catalog, marketplace="%") == []
    assert await found(catalog, preferences=("a & | !b:* ':",)) == ["1"]


async def test_excluded_brands_keep_products_without_a_brand(catalog: CatalogRepository) -> None:
    """Excluding brands, even the empty name, keeps products without a brand."""
    await catalog.upsert([product("1"), product("2", brand="Acme"), product("3", brand="Zen")])
    assert sorted(await found(catalog, excluded_brands=("acme", ""))) == ["1", "3"]
