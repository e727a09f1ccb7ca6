"""Conversion of rows to products."""

from decimal import Decimal
from typing import cast

import pytest

from shopassist.catalog.importer.importer import ImportOptions, load_sample, plan_import
from shopassist.catalog.models import Product
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError
from shopassist.storage.repositories import Repositories
from tests.support.catalog_files import Shop, row


async def test_attributes_are_cleaned(shop: Shop) -> None:
    """Scalars become JSON values, markup is removed; links, stock, nested records and empty values are left out."""
    facts = {
        "warrantyInformation": "1 <b>year</b> &amp; more",
        "inStock": "yes",
        "depthMm": "4.50",
        "empty": "",
        "none": None,
        "tags": ["a", "b"],
        "image": "https://x/y.png",
        "meta": {"k": 1},
        "dimensions": {"width": 2},
        "big": 10**30,
    }
    await shop.take(shop.file("a.jsonl", [row(1, **facts)]))
    assert shop.product("1").attributes == {
        "warranty_information": "1 year & more",
        "depth_mm": 4.5,
        "tags": "a, b",
        "width": 2,
        "big": 10**30,
    }


async def test_missing_link_becomes_a_store_search(shop: Shop) -> None:
    """The link is a search at Amazon in the country of the currency, or the template of the owner."""
    path = shop.file("a.jsonl", [row(1, brand="Acme & Co", currency="INR"), row(2)])
    await shop.take(path)
    assert shop.product("1").link == "https://www.amazon.in/s?k=Acme+%26+Co+Thing+1"
    assert shop.product("2").link == "https://www.amazon.com/s?k=Thing+2"
    await shop.take(path, link_template="https://shop.example/?q={query}")
    assert shop.product("2").link == "https://shop.example/?q=Thing+2"
    with pytest.raises(InvalidInputError, match="template"):
        plan_import(path, ImportOptions(link_template="ftp://x/{query}"))


async def test_products_without_ids_get_stable_ids(shop: Shop) -> None:
    """The id is a hash, so that a second import finds the products."""
    path = shop.file("a.csv", "title,price\nOne,$5\nTwo,$6\n")
    assert (await shop.take(path)).inserted == 2
    assert (await shop.take(path)).unchanged == 2


async def test_icecat_columns_become_attributes(shop: Shop) -> None:
    """Columns get keys with units; the category is set only if it is certain; cents become dollars."""
    shape = {"supplier": "HP", "short_description": None, "img_500x500": "http://x/y.jpg", "price": 10995}
    laptop = {"attr_t_product_type": "Notebook", "attr_n_internal_memory": 4.0, "attr_n_total_storage_capacity": 250.0,
              "attr_n_display_diagonal": 17.0, "attr_b_bluetooth": True, "attr_t_product_colour": "Silver"}  # fmt: skip
    phone = {"attr_t_form_factor": "Bar", "attr_n_display_diagonal": 6.4, "attr_n_ram_capacity": 4.0,
             "attr_n_internal_storage_capacity": 64.0, "attr_t_mobile_network_generation": "4G"}  # fmt: skip
    rows = [
        {"id": "1", "title": 'HP Pavilion Notebook 43.2 cm (17")'} | shape | laptop,
        {"id": "2", "title": "Motorola moto g8"} | shape | phone,
        {"id": "3", "title": "Kensington notebook case", "attr_n_internal_memory": 512.0} | shape,
    ]
    await shop.take(shop.file("a.jsonl", rows))
    first, second, third = (shop.product(number) for number in "123")
    assert (first.category, first.price, first.currency) == ("laptops", Decimal("109.95"), "USD")
    assert (
        first.attributes | {"ram_gb": 4, "storage_gb": 250, "screen_inches": 17, "colour": "Silver"} == first.attributes
    )
    assert second.category == "smartphones"
    assert second.attributes | {"ram_gb": 4, "storage_gb": 64, "network": "4G"} == second.attributes
    assert third.category is None
    assert "ram_gb" not in third.attributes


async def test_sample_fills_only_an_empty_catalogue(shop: Shop) -> None:
    """The sample is loaded once and completely, and never beside other products."""
    unit_of_work = cast("UnitOfWork[Repositories]", shop.unit_of_work)
    assert await load_sample(unit_of_work) > 100
    assert await load_sample(unit_of_work) == 0
    assert {product.source for product in shop.store.table(Product).values()} == {"sample"}
