"""Property tests of search and import: both implementations agree with `Criteria`."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopassist.catalog.importer.rows import ProductBuilder
from shopassist.catalog.importer.values import InvalidRowError
from shopassist.catalog.models import Bound, Criteria, Feature, SortOrder
from shopassist.catalog.ports import CatalogRepository
from tests.support.catalog_examples import product

NAMES = st.sampled_from(["Acme", "acme", "Zen", "Ünï", None])
KINDS = st.sampled_from(["Laptops", "mice", "smart watches", None])
TITLES = st.lists(st.sampled_from(["gaming", "Mouse", "mice", "Laptop", "USB-C", "waterproof", "4.5"]), min_size=1)
FACTS = st.fixed_dictionaries(
    {},
    optional={
        "ram_gb": st.one_of(st.integers(0, 9), st.sampled_from([4.5, "8", "4.5 GB", True, [5]])),
        "waterproof": st.sampled_from([True, False, "no", "IP68", "false"]),
        "colour": st.sampled_from(["Red", "blue"]),
    },
)
AMOUNTS = st.sampled_from([Decimal(10), Decimal("10.01"), Decimal(50), Decimal(99)])
PRODUCTS = st.builds(
    lambda title, price, currency, link, facts: {
        "title": " ".join(title),
        "price": price,
        "currency": None if price is None else currency,
        "link": f"https://{link}/dp/amazon.in?flipkart.com",
        **facts,
    },
    TITLES,
    st.one_of(st.none(), AMOUNTS),
    st.sampled_from(["USD", "INR"]),
    st.sampled_from(["www.amazon.in", "www.Amazon.com", "flipkart.com"]),
    st.fixed_dictionaries(
        {"brand": NAMES, "category": KINDS, "attributes": FACTS},
        optional={"rating": st.sampled_from([Decimal("3.50"), Decimal(5)]), "rating_count": st.integers(0, 3)},
    ),
)
FEATURES = st.builds(
    Feature,
    name=st.just("feature"),
    wordings=st.lists(st.sampled_from(["waterproof", "IP68", "gaming mouse", "usb c", "", "red"]), max_size=2).map(
        tuple
    ),
    denying_attribute=st.sampled_from([None, "waterproof"]),
)
BOUNDS = st.builds(
    Bound,
    name=st.sampled_from(["ram_gb", "rating", "rating_count", "unknown"]),
    minimum=st.sampled_from([None, Decimal(0), Decimal("3.5"), Decimal(4)]),
    maximum=st.sampled_from([None, Decimal(2), Decimal("4.5"), Decimal(8)]),
    exclusive=st.booleans(),
)


def few(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """Draw up to two of `values`."""
    return st.lists(st.sampled_from(values), max_size=2).map(tuple)


CRITERION: dict[str, st.SearchStrategy[Any]] = {
    "categories": few(["laptops", "mice", ""]),
    "excluded_categories": few(["mice", ""]),
    "brands": few(["acme", "ünï", ""]),
    "excluded_brands": few(["acme", "zen", ""]),
    "price_min": AMOUNTS,
    "price_max": AMOUNTS,
    "currency": st.sampled_from(["USD", "INR"]),
    "bounds": BOUNDS.map(lambda bound: (bound,)),
    "features": FEATURES.map(lambda feature: (feature,)),
    "excluded_features": FEATURES.map(lambda feature: (feature,)),
    "marketplace": st.sampled_from(["amazon", "amazon.in", "Flipkart", "%"]),
    "terms": few(["mouse", "Laptops", "usb-c", "4.5", "!"]),
    "preferences": few(["gaming", "waterproof", "the", "!"]),
    "sort_order": st.sampled_from(SortOrder),
}
TOGETHER = [{"categories", "category_words"}, {"price_max", "currency"}, *({name} for name in CRITERION)]
CRITERIA = (
    st.lists(st.sampled_from(TOGETHER), min_size=1, max_size=2)
    .map(lambda groups: {name: (CRITERION | {"category_words": FEATURES})[name] for group in groups for name in group})
    .flatmap(st.fixed_dictionaries)
    .map(lambda values: Criteria(**values))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offered=st.lists(PRODUCTS, min_size=3, max_size=10), asked=st.lists(CRITERIA, min_size=8, max_size=12))
async def test_search_agrees_with_find_unmet(
    catalog: CatalogRepository, offered: list[dict[str, Any]], asked: list[Criteria]
) -> None:
    """Both implementations return exactly the products for which `Criteria.find_unmet` is empty."""
    products = [product(str(number), **facts) for number, facts in enumerate(offered)]
    products += [product(str(number), price=None, currency=None) for number in range(len(products), 10)]
    await catalog.upsert(products)
    for criteria in asked:
        hits = await catalog.search(criteria, limit=10)
        expected = sorted(entry.source_id for entry in products if not criteria.find_unmet(entry))
        assert sorted(hit.source_id for hit in hits) == expected, criteria


WILD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=20), st.just("x" * 9000)
)
WILD_ROWS = st.dictionaries(
    st.one_of(st.text(max_size=8), st.sampled_from(["brand", "category", "description", "rating", "reviews", "link"])),
    st.one_of(WILD, st.lists(WILD, max_size=3)),
    max_size=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(WILD_ROWS, max_size=5), titles=st.lists(st.text(min_size=1), min_size=5, max_size=5))
async def test_imported_rows_can_be_stored(
    catalog: CatalogRepository, rows: list[dict[str, Any]], titles: list[str]
) -> None:
    """Any row is rejected, or stored without an error in its batch."""
    fields = ("title", "price", "brand", "category", "description", "rating", "rating_count", "link")
    mapping = {name: name for name in fields} | {"rating_count": "reviews"}
    builder = ProductBuilder("wild", mapping, currency="USD")
    taken = []
    for title, values in zip(titles, rows, strict=False):
        with suppress(InvalidRowError):
            taken.append(builder.build({"title": title, "price": 5} | values))
    await catalog.upsert(taken)
    again = await catalog.upsert(taken)
    assert (again.inserted, again.updated) == (0, 0)
