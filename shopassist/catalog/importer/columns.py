"""Which column of a catalogue file holds which field, in six languages, and which columns say nothing to a shopper."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from shopassist.catalog.currencies import CODES_BY_SIGN, ISO_CODES
from shopassist.errors import InvalidInputError


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SALE_PRICES = _names(
    "sale_price special_price discounted_price discount_price offer_price deal_price selling_price current_price "
    "final_price our_price price_sale promotional_price angebotspreis aktionspreis sonderpreis prix_promo prix_solde "
    "prix_promotionnel precio_oferta precio_rebajado precio_de_oferta preco_promocional preco_com_desconto"
)
PRICES = _names(
    "price variant_price price_tax_included price_tax_incl price_incl_tax price_amount prices unit_price preis "
    "verkaufspreis bruttopreis preis_brutto einzelpreis prix prix_ttc prix_de_vente precio pvp precio_venta preco "
    "preco_de_venda valor कीमत मूल्य दाम price_tax_excluded price_tax_excl price_excl_tax prix_ht"
)
LIST_PRICES = _names(
    "regular_price variant_compare_at_price compare_at_price list_price actual_price retail_price original_price mrp "
    "msrp rrp market_price strike_price price_before_discount listenpreis uvp originalpreis streichpreis prix_barre "
    "prix_public prix_conseille precio_regular precio_original precio_anterior preco_original preco_de एमआरपी"
)
CATEGORIES = _names(
    "category category_name product_category categories product_categories category_path product_type main_category "
    "department product_category_tree category_tree google_product_category fb_product_category taxonomy "
    "kategorie kategorien produktkategorie warengruppe "
    "categorie categories_x_y_z categoria categorias rubrique श्रेणी"
)
SUBCATEGORIES = _names("sub_category subcategory unterkategorie sous_categorie subcategoria उपश्रेणी")
CATEGORY_LISTS = frozenset(_names("categories product_categories categories_x_y_z kategorien categorias"))
"""Columns that hold several categories, separated by commas."""
COLUMN_SYNONYMS = {
    "source_id": _names("source_id id product_id item_id asin sku uniq_id variant_sku gtin ean listing_id "
                        "artikelnummer produkt_id artikel_nr art_nr referencia reference ref codigo id_produit "
                        "id_producto id_produto code_article product_code item_number handle आईडी"),
    "title": _names("title product_title product_name item_name name produktname artikelname bezeichnung titel "
                    "produktbezeichnung artikelbezeichnung produkt artikel nom nom_du_produit titre libelle "
                    "designation intitule nombre nombre_del_producto titulo producto nome nome_do_produto produto नाम "
                    "उत्पाद उत्पाद_का_नाम शीर्षक product"),
    "brand": _names("brand brand_name supplier manufacturer manufacturer_name vendor make marke hersteller marque "
                    "fabricant marca fabricante ब्रांड"),
    "category": CATEGORIES,
    "description": _names("description product_description long_description short_description body_html about_product "
                          "about summary beschreibung produktbeschreibung langbeschreibung kurzbeschreibung "
                          "desc description_courte resume descripcion descripcion_corta descricao "
                          "descricao_curta विवरण"),
    "price": ("price", "current_price", *(n for n in (*SALE_PRICES, *PRICES, *LIST_PRICES)
                                          if n not in {"price", "current_price"})),
    "currency": _names("currency currency_code price_currency currency_id waehrung wahrung devise monnaie "
                       "moneda moeda मुद्रा"),
    "price_as_of": _names("price_as_of price_date"),
    "rating": _names("rating average_rating avg_rating stars review_rating rating_value star_rating "
                     "product_review_rating average_review_rating product_rating overall_rating ratings "
                     "bewertung durchschnittsbewertung note note_moyenne evaluation "
                     "calificacion valoracion puntuacion avaliacao nota classificacao रेटिंग"),
    "rating_count": _names("rating_count ratings_count review_count reviews_count num_reviews number_of_reviews "
                           "no_of_ratings number_of_ratings no_of_reviews product_review_count num_ratings reviews "
                           "anzahl_bewertungen nombre_avis nombre_d_avis nb_avis numero_de_opiniones num_opiniones "
                           "numero_de_avaliacoes रेटिंग_संख्या"),
    "link": _names("link url product_url product_link href permalink canonical_url produktlink produkt_url lien "
                   "lien_produit url_produit enlace url_producto url_do_produto लिंक"),
    "attributes": _names("attributes specifications specs"),
}  # fmt: skip
"""Fields of products, and the names of columns that hold them, the most likely first."""

WEAK_IDS = frozenset({"sku", "variant_sku", "gtin", "ean", "reference", "ref", "referencia"})
"""Columns that are often empty; a product without one is known by its brand and title."""
MAX_LISTED_COLUMNS = 12


class FileLayout(NamedTuple):
    """A known kind of file, recognised by the columns `signature`; the currency and the unit of its prices.

    All columns without a field are attributes if `keeps_all_columns`.
    """

    name: str
    signature: frozenset[str]
    currency: str | None = None
    in_minor_units: bool = False
    keeps_all_columns: bool = False


ICECAT = FileLayout(
    "ICEcat open catalogue", frozenset({"supplier", "short_description", "img_500x500"}), "USD", in_minor_units=True,
    keeps_all_columns=True,
)  # fmt: skip
DUMMYJSON = FileLayout(
    "DummyJSON", frozenset({"discountPercentage", "availabilityStatus", "thumbnail"}), "USD", keeps_all_columns=True
)
SHOPIFY = FileLayout("Shopify", frozenset({"Handle", "Title", "Variant Price"}))
LAYOUTS = (ICECAT, DUMMYJSON, SHOPIFY)
SHOPIFY_CATEGORY = "Type"


@lru_cache(maxsize=10_000)
def to_snake_case(name: str) -> str:
    """Convert the name of a column to a key: "warrantyInformation" and "Warranty information" are the same."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", spaced).strip("_").lower()


@lru_cache(maxsize=10_000)
def normalise_heading(name: str) -> str:
    """Return the name to compare with synonyms: without accents (marks of Hindi stay), "g:" and currency at its end."""
    plain = unicodedata.normalize("NFKD", name.removeprefix("g:"))
    bare = "".join(c for c in plain if not "\u0300" <= c <= "\u036f")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare.strip()).lower()
    # \w does not match the vowel signs of Devanagari.
    key = re.sub(r"[^\w\u0900-\u097f]+|_+", "_", spaced).strip("_")
    head, _, tail = key.rpartition("_")
    return head.removesuffix("_in") if head in PRICE_NAMES and find_heading_currency(name) and tail else key


PRICE_NAMES = frozenset({*SALE_PRICES, *PRICES, *LIST_PRICES}) | {f"{n}_in" for n in (*PRICES, *LIST_PRICES)}


def find_heading_currency(name: str) -> str | None:
    """Return the currency that the heading of a price ends in: "Price (USD)", "MRP in Rs."; None without one."""
    match = re.search(r"(?:[\s_(\[]|\bin\b)\s*([^\s_()\[\]]+?)\.?[)\]]?\s*$", name)
    mark = match[1] if match else ""
    if len(mark) == len("USD") and mark.upper() in ISO_CODES:
        return mark.upper()
    return next(iter(CODES_BY_SIGN.get(mark.lower().rstrip("."), ())), None)


@lru_cache(maxsize=10_000)
def find_field(name: str) -> str | None:
    """Return the field that a column of this name holds."""
    return FIELD_BY_NAME.get(normalise_heading(name))


FIELD_BY_NAME = {name: field for field, names in reversed(COLUMN_SYNONYMS.items()) for name in names}


def count_fields(names: Sequence[str]) -> set[str]:
    """Return the fields that these names are known for."""
    return {field for name in names if (field := find_field(str(name)))}


def map_columns(columns: Sequence[str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each field: that of `overrides`, where "-" means none, else guessed from the names.

    Raise `InvalidInputError` for an override of an unknown field or column, and if no column is the title.
    """
    for field, column in overrides.items():
        if field not in COLUMN_SYNONYMS:
            raise InvalidInputError(f"--map: there is no field {field!r}; the fields are {', '.join(COLUMN_SYNONYMS)}.")
        if column not in {*columns, "-"}:
            raise InvalidInputError(f"--map: the file has no column {column!r}; it has {_list_columns(columns)}.")
    taken = set(overrides.values())
    by_name = {normalise_heading(column): column for column in reversed(columns) if column not in taken}
    mapping = {field: column for field, column in overrides.items() if column != "-"}
    for field, names in COLUMN_SYNONYMS.items():
        guess = next((by_name[name] for name in names if name in by_name), None)
        if field == "category" and guess is None:
            guess = next((column for name, column in by_name.items() if field in name.split("_")), None)
        if field not in overrides and guess is not None:
            mapping[field] = guess
    if "title" not in mapping:
        raise InvalidInputError(
            f"No column looks like a title: name it by --map title=COLUMN. Seen: {_list_columns(columns)}."
        )
    return {field: mapping[field] for field in COLUMN_SYNONYMS if field in mapping}


def list_choices(columns: Sequence[str], overrides: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return several columns for a field; each row takes the first that is not empty (sale price, else price)."""
    by_name = {normalise_heading(column): column for column in reversed(columns)}
    names = {"price": (*SALE_PRICES, *PRICES, *LIST_PRICES), "category": CATEGORIES}
    found = {field: tuple(by_name[name] for name in listed if name in by_name) for field, listed in names.items()}
    if SHOPIFY.signature.issubset(columns) and SHOPIFY_CATEGORY in columns:
        found["category"] += (SHOPIFY_CATEGORY,)
    return {field: choice for field, choice in found.items() if len(choice) > 1 and field not in overrides}


def _list_columns(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:MAX_LISTED_COLUMNS])
    return f"{shown} …" if len(columns) > MAX_LISTED_COLUMNS else shown or "none"


UNTOLD_WORDS = frozenset(_names(
    "review reviews reviewer reviewers comment comments bewertungen avis customer seo meta keyword keywords tax "
    "taxes  taxable vat gst hsn mwst iva tva stock inventory qty lagerbestand bestand existencias estoque "
    "backorder  backorders date dates created updated modified timestamp datum fecha wholesale purchase cost "
    "discount shipping"
))  # fmt: skip
"""Words in the names of columns about the shop's business and about reviewers."""
UNTOLD_LAST_WORDS = frozenset(_names(
    "id ids sku gtin ean upc isbn mpn barcode barcodes asin handle slug guid uuid reference status visibility "
    "published availability available enabled active url urls link links href key at position parent quantity "
    "discontinued  variants order rel image images img picture pictures photo photos thumbnail thumbnails bild "
    "bilder imagen imagem"
))  # fmt: skip
UNTOLD_BEGINNINGS = (
    "user_name", "user_id", "variant_fulfillment", "variant_requires", "variant_grams", "variant_weight", "gift_card",
    "google_shopping", "active_0_1", "visibility_in", "is_eligible", "enable_search", "enable_checkout", "is_featured",
    "url_", "on_sale", "is_purchasable", "menu_order",
)  # fmt: skip
IMAGE_COLUMN = re.compile(r"(?:.*_)?(?:image|img|picture|photo)s?(?:_(?:link|url|src|path|alt|text|label|\d+)s?)+")
TOLD_NAMES = frozenset({"face_id", "touch_id"})
OPTION_COLUMN = re.compile(r"(attribute|option|variation|feature|merkmal)_?(\d+)_(name|type|value|value_s|values)")
OPTION_DETAIL = re.compile(r"(attribute|option|variation|feature)_?\d+_.*")


@lru_cache(maxsize=10_000)
def is_untold(name: str) -> bool:
    """Return whether a column is about the shop's business (stock, tax, ids, pictures) or about reviewers."""
    if find_field(name) in {"price", "category", "source_id"}:
        return True
    key = normalise_heading(name)
    words = key.split("_")
    is_named = not UNTOLD_WORDS.isdisjoint(words) or words[-1].rstrip("0123456789") in UNTOLD_LAST_WORDS
    is_named = is_named or key.startswith(UNTOLD_BEGINNINGS) or IMAGE_COLUMN.fullmatch(key) is not None
    return is_named and key not in TOLD_NAMES


@lru_cache(maxsize=10_000)
def parse_option_column(name: str) -> tuple[str, str] | None:
    """Return the number of an option and whether the column is its "name" or its "value"; ("", "") for its details."""
    key = normalise_heading(name)
    match = OPTION_COLUMN.fullmatch(key)
    if match:
        return f"{match[1]} {match[2]}", "value" if match[3].startswith("value") else "name"
    return ("", "") if OPTION_DETAIL.fullmatch(key) else None
