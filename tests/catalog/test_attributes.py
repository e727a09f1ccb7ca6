"""The table of attributes: every row is read, filtered, compared, ranked, imported and described."""

import ast
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shopassist.assistant.follow_ups import apply_comparison
from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.lexicon import DEVICE_NOUNS
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.assistant.ranking import rank_products
from shopassist.assistant.wording import ProductComparison, describe_attribute, describe_bound
from shopassist.catalog.attributes import ATTRIBUTES, COLUMN_KEYS, OTHER_UNITS, UNITS, Attribute
from shopassist.catalog.currencies import SIGNS
from shopassist.catalog.importer.icecat import normalise_icecat_attributes
from shopassist.catalog.models import Bound, Criteria, Product, Vocabulary

FOLLOW_UP_PHRASES = {
    "ram_gb": ["more ram"],
    "storage_gb": ["bigger storage"],
    "battery_mah": ["bigger battery"],
    "capacity_mah": ["larger capacity battery"],
    "main_camera_mp": ["better camera"],
    "screen_inches": ["bigger screen", "smaller"],
    "charging_watts": ["faster charging"],
    "battery_hours": ["longer battery"],
    "weight_g": ["lighter"],
}
"""One phrase for each follow-up of a row, in order."""

NAMES = VocabularyIndex(Vocabulary(categories=tuple(DEVICE_NOUNS), currencies=("INR",)), "INR")


def rows(field: str) -> pytest.MarkDecorator:
    """Parametrise a test with every row that has `field`."""
    return pytest.mark.parametrize("row", [row for row in ATTRIBUTES if getattr(row, field)], ids=lambda row: row.key)


def make_product(row: Attribute, value: float, title: str = "A") -> Product:
    """Build a product with one attribute."""
    columns: dict[str, Any] = {row.key: Decimal(value)} if row.column else {}
    attributes = {} if row.column else {row.key: value}
    return Product(
        source="s", source_id=title, title=title, price=Decimal(100), currency="INR", link="https://shop.example/a",
        attributes=attributes, **columns,
    )  # fmt: skip


@rows("limit")
def test_a_limit_is_read_by_the_words_of_its_unit(row: Attribute) -> None:
    """The description of a limit, asked as a question, gives the limit."""
    kind = min(row.kinds, default="laptops")
    for bound in (Bound(name=row.key, minimum=Decimal(4)), Bound(name=row.key, maximum=Decimal(4), exclusive=True)):
        assert parse_question(f"{kind} {describe_bound(bound)}", NAMES).criteria.bounds == (bound,)


@rows("units")
def test_rows_with_units_can_be_limited_or_are_only_recognised(row: Attribute) -> None:
    """A unit without a limit sets none: it only keeps the number from being read as something else."""
    assert row.limit or row.key == "graphics"


@rows("limit")
def test_a_limit_filters_products(row: Attribute) -> None:
    """A product meets a limit on its own value only."""
    criteria = Criteria(bounds=(Bound(name=row.key, minimum=Decimal(3)),))
    assert criteria.find_unmet(make_product(row, 4)) == []
    assert criteria.find_unmet(make_product(row, 2)) == [row.key]


@rows("fact")
def test_a_value_is_described(row: Attribute) -> None:
    """The wording of the row is used, and that for large values from the threshold on."""
    assert describe_attribute(row.key, 7) == row.fact.format(7)
    if row.large:
        assert describe_attribute(row.key, row.large[0] * 2) == row.large[1].format(2)


@rows("comparison")
def test_products_are_compared(row: Attribute) -> None:
    """The better product has an advantage, the other a drawback."""
    products = [make_product(row, 2, "A"), make_product(row, 4, "B")]
    better, worse = products[::-1] if row.direction > 0 else products
    comparison = ProductComparison(products, products, Criteria())
    assert row.comparison is not None
    assert comparison.list_pros(better)[0].startswith(f"{row.comparison.advantage} of the 2 compared (")
    assert comparison.list_cons(worse)[0] == f"{row.comparison.drawback.format(2)} than {better.title}"


@rows("ranked")
def test_more_is_ranked_first(row: Attribute) -> None:
    """Among equal products the one with more comes first."""
    products = [make_product(row, 2, "A"), make_product(row, 4, "B")]
    assert rank_products(products, Criteria(categories=("laptops",)))[0].title == "B"


@rows("preferences")
def test_a_preference_ranks(row: Attribute) -> None:
    """Each word of a preference puts the product with more first."""
    products = [make_product(row, 2, "A"), make_product(row, 4, "B")]
    for word in row.preferences.split():
        criteria = Criteria(categories=("laptops",), preferences=(word,))
        assert rank_products(products, criteria)[0].title == "B"


@rows("follow_ups")
def test_a_follow_up_asks_for_more_or_less(row: Attribute) -> None:
    """A phrase sets a limit beyond the product that was shown."""
    for follow_up, phrase in zip(row.follow_ups, FOLLOW_UP_PHRASES[row.key], strict=True):
        criteria = apply_comparison(Criteria(), Criteria(), [make_product(row, 4)], phrase)
        limit = {"minimum": Decimal(4)} if follow_up.direction > 0 else {"maximum": Decimal(4)}
        assert criteria.bounds == (Bound(name=row.key, exclusive=True, **limit),)


@rows("feature")
def test_a_feature_is_read_by_its_words(row: Attribute) -> None:
    """Each wording of shoppers is read as the feature, which the attribute may deny."""
    assert row.feature is not None
    for phrase in row.feature.asked.split("|"):
        [feature] = parse_question(f"printer with {phrase}", NAMES).criteria.features
        assert (feature.name, feature.denying_attribute) == (row.feature.name, row.key)


@rows("fast")
def test_a_fast_feature_is_a_limit(row: Attribute) -> None:
    """In the kinds of the row the feature is read as a limit."""
    assert row.fast is not None
    for kind in row.fast.kinds:
        criteria = parse_question(f"{kind} with {row.fast.feature}", NAMES).criteria
        assert criteria.bounds == (Bound(name=row.key, minimum=Decimal(row.fast.minimum)),)
        assert criteria.features == ()


@rows("icecat")
def test_a_value_is_imported_from_icecat(row: Attribute) -> None:
    """The first column of each source is taken over."""
    types = {"laptops": "Notebook", "computers": "PC"}
    titles = {"smartphones": "smartphone", "tablets": "", "storage": "usb flash drive", "power banks": "power bank"}
    for source in row.icecat:
        column = source.columns.split()[0]
        for group in source.groups & (types.keys() | titles.keys()):
            values = {"product_type": types.get(group, ""), column: 7}
            if group == "tablets":
                values["form_factor"] = "slate"
            _, attributes = normalise_icecat_attributes(values, titles.get(group, ""))
            assert attributes[row.key] == 7
        assert source.columns


def test_rows_agree_with_each_other() -> None:
    """Keys, ranks and names of units are unique; kinds of products are known; texts have their places."""
    keys = [row.key for row in ATTRIBUTES]
    comparisons = [row.comparison for row in ATTRIBUTES if row.comparison]
    ranks = [follow_up.rank for row in ATTRIBUTES for follow_up in row.follow_ups]
    units = [unit.name for unit in UNITS]
    for values in (keys, [comparison.rank for comparison in comparisons], ranks, units):
        assert len(set(values)) == len(values)
    assert all(comparison.drawback.count("{}") == 1 for comparison in comparisons)
    assert {kind for row in ATTRIBUTES for kind in row.kinds} <= DEVICE_NOUNS.keys()
    assert {unit.base for unit in UNITS if unit.base} <= set(units)
    assert UNITS[-1] is OTHER_UNITS


def find_strings(path: Path) -> Iterator[str]:
    """Yield the string constants of a module without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_only_the_tables_name_attributes_and_currency_signs() -> None:
    """A new attribute or currency changes its table alone. Columns are named by models and import files as well."""
    package = Path(__file__).parents[2] / "shopassist"
    words_of_texts = {"bluetooth", "wireless"}
    keys = {row.key for row in ATTRIBUTES} - COLUMN_KEYS - words_of_texts
    signs = set(SIGNS) - {"$"}  # which is an anchor in regular expressions
    for folder in ("catalog", "assistant"):
        for path in (package / folder).rglob("*.py"):
            if path.name not in {"attributes.py", "currencies.py"}:
                strings = list(find_strings(path))
                assert not keys.intersection(strings), path
                assert not signs.intersection("".join(strings)), path
