"""The catalogue, the same over both twins."""

from decimal import Decimal
from typing import Any, cast

from shopassist.catalog.criteria import Bound, Criteria, SortOrder
from shopassist.catalog.memory import MemoryCatalogRepository
from shopassist.catalog.models import UpsertCount
from shopassist.catalog.ports import CatalogRepository
from shopassist.catalog.postgres import PostgresCatalogRepository
from tests.support.catalog_examples import product


async def found(catalog: CatalogRepository, limit: int = 60, **criteria: Any) -> list[str]:
    """The ids of what is found, in order."""
    return [product.source_id for product in await catalog.search(Criteria(**criteria), limit)]


async def corrected(catalog: CatalogRepository, words: list[str]) -> dict[str, str]:
    """What spelling correction, which both twins have and the port may one day, says about `words`."""
    return await cast("MemoryCatalogRepository | PostgresCatalogRepository", catalog).find_corrections(words)


async def test_upsert_counts_what_it_did(catalog: CatalogRepository) -> None:
    """New, changed and equal products are told apart, and the last of a repeated key wins."""
    assert await catalog.upsert([product("1"), product("2")]) == UpsertCount(inserted=2)
    assert await catalog.upsert([product("1"), product("2", rating=Decimal("4.50")), product("3")]) == UpsertCount(
        inserted=1, updated=1, unchanged=1
    )
    assert await catalog.upsert([product("4", "First"), product("4", "Last")]) == UpsertCount(inserted=1)
    assert [hit.title for hit in await catalog.search(Criteria(terms=("last",)))] == ["Last"]
    assert await catalog.upsert([]) == UpsertCount()
    assert await catalog.count() == 4


async def test_products_come_back_as_they_were(catalog: CatalogRepository) -> None:
    """Every public fact survives, prices as exact decimals, attributes with their JSON types."""
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
    """Each name once, whatever its case, and none of what is missing."""
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


async def test_an_empty_catalogue_answers(catalog: CatalogRepository) -> None:
    """Nothing is found and nothing fails."""
    assert await found(catalog, terms=("phone",), preferences=("good",)) == []
    assert await catalog.count() == 0
    assert (await catalog.get_vocabulary()).brands == ()
    assert await corrected(catalog, ["lapto"]) == {}


async def test_products_without_a_price_are_not_found(catalog: CatalogRepository) -> None:
    """Nobody can be told to buy what has no price."""
    await catalog.upsert([product("1", price=None, currency=None)])
    assert await found(catalog) == []


async def test_wishes_only_move_up(catalog: CatalogRepository) -> None:
    """The more of them a product states the earlier it comes; one that states none still comes."""
    await catalog.upsert([product("0", "Bag"), product("1", "Red mouse"), product("2", "Red gaming mouse")])
    assert await found(catalog, preferences=("gaming", "mice", "mouse")) == ["2", "1", "0"]


async def test_terms_must_all_be_stated(catalog: CatalogRepository) -> None:
    """Plurals, case, accents and hyphens do not matter; a missing word does."""
    await catalog.upsert([product("1", "Café TN-2110 cases"), product("2", "Cafe TN-2120 case")])
    assert await found(catalog, terms=("CAFÉ", "Case", "tn-2110")) == ["1"]


async def test_orders(catalog: CatalogRepository) -> None:
    """Cheapest, dearest and best rated come first where they were asked for, unrated products last."""
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


async def test_misspelt_words_are_put_right(catalog: CatalogRepository) -> None:
    """A word that no product states becomes the nearest word of a title; others, and model numbers, are left alone."""
    await catalog.upsert([product("1", "Samsung Galaxy laptop"), product("2", "Brother TN2110 toner")])
    words = ["samsng", "lapto", "galaxy", "tn2111", "xyzzyq"]
    assert await corrected(catalog, words) == {"samsng": "samsung", "lapto": "laptop"}


async def test_attributes_that_are_no_numbers_meet_no_bound(catalog: CatalogRepository) -> None:
    """Text, booleans and missing values neither match nor fail."""
    values = ["16", True, "many", None, [16], {"n": 16}, 16]
    await catalog.upsert([product(str(n), attributes={"ram_gb": value}) for n, value in enumerate(values)])
    assert await found(catalog, bounds=(Bound(name="ram_gb", minimum=Decimal(8)),)) == ["6"]
    assert await found(catalog, bounds=(Bound(name="ram_gb"),)) == ["6"]
    assert await found(catalog, bounds=(Bound(name="ram_gb", minimum=Decimal(16), exclusive=True),)) == []


async def test_hostile_names_are_only_names(catalog: CatalogRepository) -> None:
    """SQL, path syntax and patterns in criteria are compared, never run."""
    await catalog.upsert([product("1", brand="x' OR '1'='1", attributes={"a'b\"$.[*]": 3})])
    assert await found(catalog, brands=("' or '1'='1",)) == []
    assert await found(catalog, brands=("x' or '1'='1",)) == ["1"]
    assert await found(catalog, bounds=(Bound(name="a'b\"$.[*]", minimum=Decimal(3)),)) == ["1"]
    assert await found(catalog, marketplace="%") == []
    assert await found(catalog, preferences=("a & | !b:* ':",)) == ["1"]


async def test_a_product_without_a_brand_is_of_no_excluded_brand(catalog: CatalogRepository) -> None:
    """Excluding brands, the empty name too, keeps what names no brand."""
    await catalog.upsert([product("1"), product("2", brand="Acme"), product("3", brand="Zen")])
    assert sorted(await found(catalog, excluded_brands=("acme", ""))) == ["1", "3"]
