"""The table of currencies: every row is read, imported and written."""

from decimal import Decimal

import pytest

from shopassist.assistant.parsing.grammar import parse_question
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.catalog.currencies import CODE_BY_MARK, CODES_BY_SIGN, CURRENCIES, Currency, find_currency, format_money
from shopassist.catalog.importer.prices import parse_price
from shopassist.catalog.importer.values import build_store_link
from shopassist.catalog.models import Vocabulary

NAMES = VocabularyIndex(Vocabulary(categories=("laptops",)), "XYZ")
rows = pytest.mark.parametrize("row", CURRENCIES, ids=lambda row: row.code)


@rows
def test_marks_are_read_in_questions(row: Currency) -> None:
    """A mark before or behind an amount tells its currency."""
    questions = [f"laptop under {mark} 900" for mark in row.before.split()]
    questions += [f"laptop under 900 {mark}" for mark in row.after.split()]
    questions += [f"laptop max {mark} 900" for mark in row.max_marks.split()]
    for question in questions:
        criteria = parse_question(question, NAMES).criteria
        assert (criteria.price_max, criteria.currency, criteria.terms) == (Decimal(900), row.code, ()), question


@rows
def test_signs_are_read_in_files(row: Currency) -> None:
    """A sign, or the code, tells the currency of a price; a sign of several currencies means the first."""
    for sign in row.signs.split():
        assert parse_price(f"{sign} 900", fallback=row.code) == (Decimal("900.00"), row.code)
        assert parse_price(f"{sign} 900") == (Decimal("900.00"), CODES_BY_SIGN[sign][0])
    assert parse_price(f"900 {row.code}") == (Decimal("900.00"), row.code)


@rows
def test_minor_units_are_converted(row: Currency) -> None:
    """Prices in minor units are divided by 100, by 1,000, or not at all, as the currency has such units."""
    expected = {0: Decimal("4995.00"), 2: Decimal("49.95"), 3: Decimal("5.00")}[row.minor_digits]
    assert parse_price(4995, fallback=row.code, in_minor_units=True) == (expected, row.code)


@rows
def test_amounts_are_formatted(row: Currency) -> None:
    """Amounts have the symbol or the code, groups of digits, and minor units unless they are left out."""
    digits = "1,50,000" if row.indian_groups else "150,000"
    minor = "" if row.whole_amounts else ".00"
    assert format_money(150_000, row.code) == f"{row.symbol or row.code + ' '}{digits}{minor}"


@rows
def test_links_lead_to_the_store_of_the_currency(row: Currency) -> None:
    """Products without a link get a search in the shop of their currency."""
    assert build_store_link(None, "A", "B", row.code) == f"https://www.amazon.{row.store}/s?k=A+B"


def test_rows_agree_with_each_other() -> None:
    """Codes are unique, and a mark in a question has one currency; a code without a row has defaults."""
    codes = [row.code for row in CURRENCIES]
    assert len(set(codes)) == len(codes)
    assert all(len(code) == 3 and code.isupper() for code in codes)
    marks = [(mark, row.code) for row in CURRENCIES for mark in {*row.before.split(), *row.after.split()}]
    assert len(marks) == len(CODE_BY_MARK)
    assert find_currency("XYZ") == Currency("XYZ")
