"""Import of the exports of shop software: which columns are read, how, and what is left out."""

import json
from decimal import Decimal
from typing import Any

import pytest

from shopassist.catalog.importer.importer import ImportOptions, plan_import
from shopassist.catalog.models import Product
from shopassist.errors import InvalidInputError
from tests.support.catalog_files import Shop, row


def taken(shop: Shop) -> dict[str, Product]:
    """Return the stored products by their ids."""
    return {product.source_id: product for product in shop.store.table(Product).values()}


async def test_shopify_csv(shop: Shop) -> None:
    """Further variants inherit what their product says; pictures repeat it; drafts are left out; links are built."""
    path = shop.file(
        "shopify.csv",
        "Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Variant SKU,"
        "Variant Inventory Qty,Variant Inventory Policy,Variant Price,Variant Compare At Price,Image Src,Status\n"
        'elm-desk,Elm Desk,<p>Holds two.</p>,Nook,Furniture > Tables > Desks,,"elm, desk",TRUE,Width,90 cm,ED-9,3,deny,'
        "80.00,95.00,https://i.example/1.jpg,active\n"
        "elm-desk,,,,,,,,,120 cm,ED-12,1,deny,99.00,,,\n"
        "elm-desk,,,,,,,,,150 cm,ED-15,0,continue,119.00,,,\n"
        "elm-desk,,,,,,,,,180 cm,ED-18,0,deny,139.00,,,\n"
        "elm-desk,,,,,,,,,,,,,,,https://i.example/2.jpg,\n"
        "ash-rack,Ash Rack,<p>Racks.</p>,Nook,,Racks,ash,TRUE,Title,Default Title,AR-1,5,deny,20.00,,,active\n"
        "fir-box,Fir Box,<p>Box.</p>,Nook,,Boxes,fir,FALSE,Title,Default Title,FB-1,5,deny,20.00,,,draft\n"
        "fir-box,,,,,,,,,Large,FB-2,5,deny,25.00,,,\n",
    )
    report = await shop.take(path, currency="USD", link_template="https://nook.example/products/{handle}")
    assert (report.read, report.inserted, report.left_out, report.repeated, report.rejected) == (8, 4, 3, 1, 0)
    products = taken(shop)
    assert {key: product.price for key, product in products.items()} == {
        "elm-desk": Decimal(80), "elm-desk/120 cm": Decimal(99), "elm-desk/150 cm": Decimal(119), "ash-rack": Decimal(20),
    }  # fmt: skip
    variant = products["elm-desk/120 cm"]
    assert (variant.title, variant.description, variant.brand) == ("Elm Desk", "Holds two.", "Nook")
    assert (variant.category, variant.link) == ("Desks", "https://nook.example/products/elm-desk")
    assert variant.attributes == {
        "tags": "elm, desk", "width": "120 cm", "category_path": "Furniture > Tables > Desks",
    }  # fmt: skip
    assert products["ash-rack"].category == "Racks"


async def test_shopify_json(shop: Shop) -> None:
    """Each variant is read with what its product says; those not available are left out."""
    variants = [
        {"id": 11, "title": "Red / S", "option1": "Red", "option2": "S", "price": "12.00", "available": True,
         "compare_at_price": "15.00"},
        {"id": 12, "title": "Red / M", "option1": "Red", "option2": "M", "price": "13.00", "available": False},
    ]  # fmt: skip
    shirt = {"id": 1, "title": "Linen Shirt", "handle": "linen-shirt", "body_html": "<b>Cool</b>", "vendor": "Loom",
             "product_type": "Shirts", "options": [{"name": "Colour"}, {"name": "Size"}], "variants": variants}  # fmt: skip
    report = await shop.take(shop.file("a.json", json.dumps({"products": [shirt]})), currency="EUR")
    assert (report.read, report.inserted, report.left_out) == (2, 1, 1)
    [product] = taken(shop).values()
    assert (product.source_id, product.title, product.price) == ("11", "Linen Shirt", Decimal(12))
    assert (product.brand, product.category, product.description) == ("Loom", "Shirts", "Cool")
    assert product.attributes == {"colour": "Red", "size": "S"}


async def test_woocommerce_csv(shop: Shop) -> None:
    """The sale price counts where there is one; hidden, private and sold-out products are left out."""
    path = shop.file(
        "woo.csv",
        'ID,Type,SKU,Name,Published,"Visibility in catalog",Description,"In stock?",Stock,"Sale price","Regular price",'
        'Categories,Parent,Images,"Attribute 1 name","Attribute 1 value(s)","Attribute 1 visible"\n'
        '21,simple,a,Rain Coat,1,visible,Dry.,1,2,,70,"Clothing > Coats, Sale",,https://i.example/1.jpg,Fabric,Nylon,1\n'
        "22,simple,b,Wool Coat,1,catalog,Warm.,1,,55,90,Clothing > Coats,,,,,\n"
        "23,simple,c,Old Coat,1,visible,Old.,1,,0,30,Clothing > Coats,,,,,\n"
        "24,simple,d,Hidden Coat,1,hidden,Old.,1,,5,30,Clothing > Coats,,,,,\n"
        "25,simple,e,Private Coat,0,visible,Old.,1,,5,30,Clothing > Coats,,,,,\n"
        "26,simple,f,Sold Coat,1,visible,Old.,0,,5,30,Clothing > Coats,,,,,\n",
    )
    report = await shop.take(path, currency="USD")
    assert (report.inserted, report.left_out, report.rejected) == (3, 3, 0)
    products = taken(shop)
    assert [products[key].price for key in ("21", "22", "23")] == [Decimal(70), Decimal(55), Decimal(30)]
    assert {product.category for product in products.values()} == {"Coats"}
    assert products["21"].attributes == {"fabric": "Nylon", "category_path": "Clothing > Coats"}


async def test_woocommerce_json(shop: Shop) -> None:
    """The REST representation has objects for categories, attributes and pictures."""
    record = {
        "id": 31, "name": "Mitten", "slug": "mitten", "permalink": "https://w.example/mitten", "status": "publish",
        "catalog_visibility": "visible", "price": "8.50", "regular_price": "9.50", "sale_price": "8.50",
        "stock_status": "instock", "stock_quantity": None, "average_rating": "4.50", "rating_count": 2, "tax_class": "",
        "categories": [{"id": 1, "name": "Clothing"}, {"id": 2, "name": "Gloves"}], "images": [{"src": "https://i.e/1"}],
        "attributes": [{"id": 0, "name": "Material", "options": ["Wool"]}],
    }  # fmt: skip
    rows = [record, record | {"id": 32, "status": "draft"}, record | {"id": 33, "stock_status": "outofstock"}]
    report = await shop.take(shop.file("a.json", json.dumps(rows)), currency="GBP")
    assert (report.inserted, report.left_out) == (1, 2)
    product = shop.product("31")
    assert (product.price, product.rating, product.rating_count) == (Decimal("8.50"), Decimal("4.50"), 2)
    assert (product.category, product.link) == ("Gloves", "https://w.example/mitten")
    assert product.attributes == {"material": "Wool", "category_path": "Clothing > Gloves"}


GOOGLE_COLUMNS = ("id", "title", "link", "image_link", "availability", "price", "sale_price",
                  "sale_price_effective_date", "brand", "gtin", "product_type", "item_group_id")  # fmt: skip


@pytest.mark.parametrize("delimiter", ["\t", ","])
async def test_google_table(shop: Shop, delimiter: str) -> None:
    """The sale price counts while its period lasts; sold-out products are left out; ids and pictures are no facts."""
    always, over = "2020-01-01T00:00+0000/2099-01-01T00:00+0000", "2020-01-01T00:00Z/2020-02-01T00:00Z"
    rows = [
        ("p1", "Pan", "https://g.example/1", "https://i.e/1", "in_stock", "30 EUR", "21 EUR", always, "Cook", "4006381333931", "Kitchen > Pans", "g1"),
        ("p2", "Pot", "https://g.example/2", "https://i.e/2", "in stock", "40 EUR", "22 EUR", over, "Cook", "", "Kitchen > Pots", ""),
        ("p3", "Wok", "https://g.example/3", "https://i.e/3", "out_of_stock", "50 EUR", "", "", "Cook", "", "Kitchen", ""),
        ("p4", "Lid", "https://g.example/4", "https://i.e/4", "preorder", "5 EUR", "", "", "Cook", "", "Kitchen", ""),
    ]  # fmt: skip
    content = "".join(f"{delimiter.join(cells)}\n" for cells in (GOOGLE_COLUMNS, *rows))
    report = await shop.take(shop.file("feed.txt", content))
    assert (report.inserted, report.left_out) == (3, 1)
    prices = {key: product.price for key, product in taken(shop).items()}
    assert prices == {"p1": Decimal(21), "p2": Decimal(40), "p4": Decimal(5)}
    assert (shop.product("p1").category, shop.product("p1").attributes) == (
        "Pans", {"category_path": "Kitchen > Pans"},
    )  # fmt: skip


XML_ITEMS = {
    "rss": '<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title><link>https://s.e</link>'
    "<item><g:id>x1</g:id><title>Rug &amp; mat</title><link>https://s.e/x1</link><g:price>15.00 USD</g:price>"
    "<g:sale_price>12.00 USD</g:sale_price><g:availability>in stock</g:availability>"
    "<g:shipping><g:country>US</g:country><g:price>3.00 USD</g:price></g:shipping></item></channel></rss>",
    "atom": '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>'
    '<link rel="self" href="https://s.e"/><entry><g:id>x1</g:id><g:title>Rug &amp; mat</g:title>'
    '<link rel="enclosure" href="https://i.e/x1.jpg"/><link href="https://s.e/x1"/>'
    "<g:price>12.00 USD</g:price></entry></feed>",
    "plain": '<catalog><product id="x1"><name><![CDATA[Rug & mat]]></name><url>https://s.e/x1</url>'
    '<price currency="USD">12.00</price><param name="Colour">Blue</param></product>'
    "<product><id>x2</id><name>Out</name><price>1 USD</price><stock_status>sold out</stock_status></product></catalog>",
}


@pytest.mark.parametrize("kind", XML_ITEMS)
async def test_xml_feeds(shop: Shop, kind: str) -> None:
    """Google's fields in RSS and Atom, and plain elements or attributes, are read."""
    report = await shop.take(shop.file("feed", f'<?xml version="1.0"?>\n{XML_ITEMS[kind]}'))
    assert (report.inserted, report.rejected) == (1, 0)
    product = shop.product("x1")
    assert (product.title, product.price, product.currency) == ("Rug & mat", Decimal(12), "USD")
    assert product.link == "https://s.e/x1"
    assert product.attributes == ({"colour": "Blue"} if kind == "plain" else {})


async def test_names_of_html_in_xml(shop: Shop) -> None:
    """`&nbsp;` and the like, which XML does not know, cost nothing."""
    item = "<item><id>1</id><title>Caf&eacute;&nbsp;cup</title><price>5 USD</price></item>"
    await shop.take(shop.file("a.xml", f"<rss><channel>{item}</channel></rss>"))
    assert shop.product("1").title == "Café cup"


async def test_woocommerce_store_json(shop: Shop) -> None:
    """Prices state their minor units; a rating without ratings is none."""
    prices = {"price": "1850", "regular_price": "2000", "currency_code": "USD", "currency_minor_unit": 2}
    record = {"id": 5, "name": "Cap", "prices": prices, "is_in_stock": True, "average_rating": "0", "review_count": 0}
    await shop.take(shop.file("a.json", json.dumps([record])))
    assert (shop.product("5").price, shop.product("5").rating) == (Decimal("18.50"), None)


HOSTILE_XML = [
    ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x><item><title>&b;</title></item></x>', "entity"),
    ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x><item><title>&a;</title></item></x>', "entity"),
    (f"<x>{'<y>' * 200}", "nested too deeply"),
    ("<x><item><title>a</title></wrong></x>", "not well-formed"),
    ("<x><item>a</item></x>", "no element that looks like a product"),
    ("<!DOCTYPE html><html><title>Shop</title></html>", "web page"),
]


@pytest.mark.parametrize(("content", "reason"), HOSTILE_XML)
def test_hostile_xml_is_refused(shop: Shop, content: str, reason: str) -> None:
    """Entities are not expanded, depth is limited, and errors are sentences."""
    with pytest.raises(InvalidInputError, match=reason):
        plan_import(shop.file("a.xml", content))


ACP: dict[str, Any] = {
    "id": "tee", "title": "Tee", "url": "https://a.example/tee", "variants": [
        {"id": "tee-s", "title": "Tee - Small", "description": {"plain": "A tee."}, "price": {"amount": 1999, "currency": "USD"},
         "list_price": {"amount": 2499, "currency": "USD"}, "availability": {"available": True, "status": "in_stock"},
         "categories": [{"value": "Apparel > Shirts", "taxonomy": "merchant"}],
         "variant_options": [{"name": "Size", "value": "Small"}], "condition": ["new"]},
        {"id": "tee-m", "title": "Tee - Medium", "price": {"amount": 1500, "currency": "JPY"}},
        {"id": "tee-l", "title": "Tee - Large", "price": {"amount": 1999, "currency": "USD"},
         "availability": {"available": False, "status": "discontinued"}},
    ],
}  # fmt: skip


async def test_acp_feed(shop: Shop) -> None:
    """Amounts are in minor units of their currency; variants have their own title, price and availability."""
    report = await shop.take(
        shop.file("products.jsonl", [ACP, ACP | {"id": "b", "variants": [ACP["variants"][0] | {"id": "b"}]}])
    )
    assert (report.read, report.inserted, report.left_out) == (4, 3, 1)
    small, medium = shop.product("tee-s"), shop.product("tee-m")
    assert (small.title, small.price, small.currency, small.category) == (
        "Tee - Small",
        Decimal("19.99"),
        "USD",
        "Shirts",
    )
    assert (small.description, small.link, small.attributes["size"]) == ("A tee.", "https://a.example/tee", "Small")
    assert (medium.price, medium.currency) == (Decimal(1500), "JPY")


JSON_LD: dict[str, Any] = {
    "@context": "https://schema.org", "@graph": [
        {"@type": "Organization", "name": "Shop", "url": "https://l.example"},
        {"@type": "Product", "sku": "L1", "name": "Lamp", "brand": {"@type": "Brand", "name": "Lux"}, "image": "https://i.e/1",
         "offers": {"@type": "Offer", "price": "49.90", "priceCurrency": "CHF", "url": "https://l.example/1",
                    "availability": "https://schema.org/InStock"},
         "aggregateRating": {"@type": "AggregateRating", "ratingValue": "8.6", "bestRating": "10", "reviewCount": 41},
         "additionalProperty": [{"@type": "PropertyValue", "name": "Power", "value": 5, "unitText": "W"}]},
        {"@type": "Product", "sku": "L2", "name": "Bulb", "offers": [{"price": 5, "priceCurrency": "CHF",
         "availability": "http://schema.org/OutOfStock"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("as_list", [False, True])
async def test_json_ld(shop: Shop, as_list: bool) -> None:
    """Products in a graph or an item list are read with their offer, rating, brand and properties."""
    items = [
        {"@type": "ListItem", "position": n, "item": item} for n, item in enumerate(JSON_LD["@graph"][1:], start=1)
    ]
    document = {"@type": "ItemList", "itemListElement": items} if as_list else JSON_LD
    report = await shop.take(shop.file("a.json", json.dumps(document)))
    assert (report.read, report.inserted, report.left_out) == (2, 1, 1)
    lamp = shop.product("L1")
    assert (lamp.price, lamp.currency, lamp.brand, lamp.link) == (Decimal("49.90"), "CHF", "Lux", "https://l.example/1")
    assert (lamp.rating, lamp.rating_count, lamp.attributes) == (Decimal("4.30"), 41, {"power": "5 W"})


OTHER_SHOPS = {
    "prestashop": ("Product ID;Active (0/1);Name *;Categories (x,y,z...);Price tax included;Tax rules ID;Wholesale price;"
                   "Quantity;Short description;Image URLs (x,y,z...)\n1;1;Cup;Home,Kitchen,Cups;7,50;1;2,00;5;A cup;https://i.e/1\n"
                   "2;0;Old cup;Home,Kitchen,Cups;7,50;1;2,00;5;A cup;\n",
                   ("1", "Cup", None, "Cups", "7.50")),
    "magento": ("sku,store_view_code,product_type,categories,name,price,special_price,visibility,qty,product_online\n"
                'm1,,simple,"Default Category/Gear,Default Category/Gear/Bags",Duffle,34.00,30.00,"Catalog, Search",100,1\n'
                'm2,,simple,Default Category/Gear,Hidden duffle,34.00,,"Not Visible Individually",100,1\n',
                ("m1", "Duffle", None, "Bags", "30.00")),
    "etsy": ("TITLE,DESCRIPTION,PRICE,CURRENCY_CODE,QUANTITY,TAGS,MATERIALS,IMAGE1,SKU\n"
             'Ring,Silver ring,45.00,USD,1,"ring,silver",silver,https://i.e/1,\nSold ring,x,45.00,USD,0,,,,\n',
             (None, "Ring", None, None, "45.00")),
    "openai": ("item_id,title,url,brand,product_category,price,sale_price,availability,star_rating,review_count,is_eligible_search\n"
               "o1,Mat,https://o.e/1,Om,Home > Sport > Mats,30.00 USD,25.00 USD,in_stock,4.5,12,true\n"
               "o2,Mat 2,https://o.e/2,Om,Home > Sport > Mats,30.00 USD,,in_stock,4.5,12,false\n",
               ("o1", "Mat", "Om", "Mats", "25.00")),
    "facebook": ("# Required | A unique ID,# Required | A title,# Required | in stock,# Required | Price,# Required | URL\n"
                 'id,title,availability,price,link\nk1,Mug,in stock,"11,50 USD",https://f.e/1\n',
                 ("k1", "Mug", None, None, "11.50")),
    "german": ("\n# Export vom 1. März\nArtikelnummer;Bezeichnung;Hersteller;Kategorie;Preis (EUR);Bewertung;Lagerbestand;Farbe\n"
               "d1;Kanne;Hof;Küche > Kannen;1.299,00;4,5;3;rot\nd2;Topf;Hof;Küche;9,00;4,5;0;rot\n",
               ("d1", "Kanne", "Hof", "Kannen", "1299.00")),
    "french": ("Référence;Libellé;Marque;Catégorie;Prix TTC;Quantité\nf1;Théière;Roi;Cuisine > Théières;29,90 €;4\n",
               ("f1", "Théière", "Roi", "Théières", "29.90")),
    "spanish": ("Código;Nombre del producto;Marca;Categoría;Precio;Valoración\ns1;Taza;Sol;Cocina > Tazas;12,50 €;9\n",
                ("s1", "Taza", "Sol", "Tazas", "12.50")),
    "portuguese": ("Código;Título;Marca;Categoria;Preço\np1;Xícara;Lua;Cozinha > Xícaras;R$ 1.299,90\n",
                   ("p1", "Xícara", "Lua", "Xícaras", "1299.90")),
    "hindi": ("आईडी,उत्पाद का नाम,ब्रांड,श्रेणी,मूल्य,रेटिंग\nh1,केतली,घर,रसोई > केतली,₹999,4.2\n",
              ("h1", "केतली", "घर", "केतली", "999.00")),
    "subcategories": ("name,main_category,sub_category,ratings,no_of_ratings,discount_price,actual_price\n"
                      'Fan,appliances,Table Fans,4.2,"1,255","₹1,999","₹2,990"\n',
                      (None, "Fan", None, "Table Fans", "1999.00")),
    "written lists": ("id,product,product_category_tree,mrp\n"
                      """c1,Shorts,"[""Clothing >> Women's Clothing >> Shorts""]",₹99\n""",
                      ("c1", "Shorts", None, "Shorts", "99.00")),
    "price headings": ("id,name,brand,category,MRP (Rs.),Offer Price (Rs.)\nq1,Fan,Air,Fans,2000,1500\n",
                       ("q1", "Fan", "Air", "Fans", "1500.00")),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_SHOPS)
async def test_other_shops(shop: Shop, kind: str) -> None:
    """One product of each is taken; other rows, if any, are not for sale. Business columns are no facts."""
    content, (source_id, title, brand, category, price) = OTHER_SHOPS[kind]
    report = await shop.take(shop.file("a.csv", content), currency="USD" if kind in {"prestashop", "magento"} else None)
    assert (report.inserted, report.rejected, report.inserted + report.left_out) == (1, 0, report.read)
    [product] = taken(shop).values()
    assert source_id is None or product.source_id == source_id
    assert (product.title, product.brand, product.category, product.price) == (title, brand, category, Decimal(price))
    assert set(product.attributes) <= {"category_path", "farbe", "tags", "materials"}


async def test_category_paths_and_reviewers(shop: Shop) -> None:
    """The leaf is the category, the path is kept but not searched as words; nothing about reviewers is stored."""
    path = shop.file(
        "a.csv",
        "product_id,product_name,category,discounted_price,actual_price,rating,rating_count,user_name,review_title,"
        "review_content,seo_title,created_at,warranty\n"
        'r1,Cord,Phones&Extras|Cords|USBCords,₹49,₹99,"4,1","1,378","Ira,Dev",Fine,Strong cord,Buy,2024-01-01,1 year\n'
        "r2,Mixer,Home&Kitchen|JuicerMixerGrinders,₹999,,|,|,Ira,ok,ok,Buy,2024-01-01,\n",
    )
    report = await shop.take(path)
    assert (report.inserted, report.dropped) == (2, {"rating": 1, "rating_count": 1})
    cord = shop.product("r1")
    assert (cord.category, cord.rating, cord.rating_count) == ("USB Cords", Decimal("4.10"), 1378)
    assert cord.attributes == {"warranty": "1 year", "category_path": "Phones & Extras > Cords > USB Cords"}
    assert not {"phone", "extra", "ira", "strong"}.intersection(cord.words)
    assert shop.product("r2").category == "Juicer Mixer Grinders"


@pytest.mark.parametrize(
    ("ratings", "expected"),
    [
        (["8.4", "9", "6,5"], ["4.20", "4.50", "3.25"]),
        ([84, 90, 40], ["4.20", "4.50", "2.00"]),
        (["4,5", "3"], ["4.50", "3.00"]),
        (["4.2 out of 5 stars", "8/10", "90%"], ["4.20", "4.00", "4.50"]),
        ([{"rate": 3.9, "count": 120}, {"average": 4}], ["3.90", "4.00"]),
        ([4, 5, 5.1], ["4.00", "5.00", None]),
    ],
)
async def test_ratings_on_other_scales(shop: Shop, ratings: list[Any], expected: list[str | None]) -> None:
    """The scale is stated beside the rating, or follows from the others in the file."""
    await shop.take(shop.file("a.jsonl", [row(n, rating=rating) for n, rating in enumerate(ratings)]))
    assert [shop.product(str(n)).rating for n in range(len(ratings))] == [e and Decimal(e) for e in expected]


async def test_nested_json(shop: Shop) -> None:
    """Of several lists that of the products is read, and objects stand for their name, amount or count."""
    table = {
        "id": 1,
        "title": "Desk",
        "price": {"amount": 45050, "currency": "EUR"},
        "category": {"id": 2, "name": "Desks"},
    }
    chair = {
        "id": 2,
        "title": "Seat",
        "price": {"amount": "45.50", "currencyCode": "EUR"},
        "rating": {"rate": 4, "count": 9},
    }
    documents = [
        {"categories": [{"id": 1, "name": "Desks"}, {"id": 2, "name": "x"}, {"id": 3, "name": "y"}], "products": [table, chair]},
        {"data": {"shop": {"name": "S", "items": [table, chair]}}},
        {"a": table | {"id": None} | {"id": 1}, "b": chair},
        [table, chair],
    ]  # fmt: skip
    for number, document in enumerate(documents):
        shop.store.table(Product).clear()
        assert (await shop.take(shop.file(f"{number}.json", json.dumps(document)))).inserted == 2
        assert (shop.product("1").price, shop.product("1").category) == (Decimal("450.50"), "Desks")
        assert (shop.product("2").price, shop.product("2").rating_count) == (Decimal("45.50"), 9)


async def test_links(shop: Shop) -> None:
    """Relative links are completed; without a base they are left out; a template takes columns of the file."""
    rows = [
        row(1, link="/p/desk", slug="a desk"),
        row(2, link="www.b.example/x"),
        row(3, link="https://c.example/", slug="c"),
    ]
    path = shop.file("a.jsonl", rows)
    report = await shop.take(path, link_base="https://s.example/shop/")
    links = [shop.product(key).link for key in "123"]
    assert links == ["https://s.example/p/desk", "https://www.b.example/x", "https://c.example/"]
    assert not report.dropped
    report = await shop.take(path, link_template="https://s.example/p/{slug}")
    assert report.dropped == {"link": 1}
    assert shop.product("1").link == "https://s.example/p/a%20desk"
    for template in ("https://s.example/{unknown}", "https://s.example/", "ftp://s.example/{slug}"):
        with pytest.raises(InvalidInputError, match="link template"):
            plan_import(path, ImportOptions(link_template=template))
    with pytest.raises(InvalidInputError, match="--link-base"):
        plan_import(path, ImportOptions(link_base="shop"))


async def test_field_can_be_unmapped(shop: Shop) -> None:
    """`-` in place of a column leaves a field empty."""
    path = shop.file("a.csv", "id,title,brand,price\n1,Desk,Nook,5 EUR\n")
    await shop.take(path, columns={"brand": "-"})
    assert shop.product("1").brand is None
    with pytest.raises(InvalidInputError, match="--map title"):
        plan_import(path, ImportOptions(columns={"title": "-"}))
