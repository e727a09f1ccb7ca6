"""Types of the rows of the attribute table, and the functions that rows refer to."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

Limits = tuple[Decimal | None, Decimal | None]
"""Minimum and maximum."""

LARGE_SCREEN_INCHES = 20
LARGE_SCREEN_TOLERANCE, SMALL_SCREEN_TOLERANCE, SCREEN_CLASS_TOLERANCE = map(Decimal, ("0.5", "0.15", "0.65"))


def at_least(value: Decimal) -> Limits:
    """Read a number without a comparison as a minimum."""
    return value, None


def at_most(value: Decimal) -> Limits:
    """Read a number without a comparison as a maximum."""
    return None, value


def near_screen_size(value: Decimal) -> Limits:
    """Read a number without a comparison as a screen size; "6 inch" is a class up to 6.65."""
    if value >= LARGE_SCREEN_INCHES:
        return value - LARGE_SCREEN_TOLERANCE, value + LARGE_SCREEN_TOLERANCE
    whole = value == value.to_integral_value()
    return value - SMALL_SCREEN_TOLERANCE, value + (SCREEN_CLASS_TOLERANCE if whole else SMALL_SCREEN_TOLERANCE)


IcecatReader = Callable[[Mapping[str, Any], Sequence[str]], Any]
"""Reads a value from some columns of an ICEcat row."""


def read_number(values: Mapping[str, Any], columns: Sequence[str]) -> float | None:
    """Return the first positive number."""
    numbers = (values.get(column) for column in columns)
    return next((n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool) and n > 0), None)


def read_value(values: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """Return the first value."""
    return next((values[column] for column in columns if values.get(column) is not None), None)


def read_text(values: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """Return all texts joined by a space."""
    return " ".join(str(values[column]) for column in columns if values.get(column)) or None


def read_wireless(values: Mapping[str, Any], columns: Sequence[str]) -> bool | None:
    """Return whether a device is wireless by its connectivity and its interface, the two `columns`."""
    connectivity, interface = (str(values.get(column, "")).lower() for column in columns)
    if "wireless" in connectivity or "rf wireless" in interface:
        return True
    return False if connectivity == "wired" else None


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit behind a number in a question, a regular expression that may end in a word of context.

    `qualified` units are tried before the others, because others match the beginning of what they match. An amount is
    multiplied by `factor` to be in the unit `base`.
    """

    name: str
    pattern: str
    qualified: bool = False
    factor: Decimal = Decimal(1)
    base: str = ""


class Comparison(NamedTuple):
    """How products are compared by an attribute; comparisons are listed by `rank`.

    `drawback` has a place for the difference; `fact` shows the value if the wording of the attribute does not.
    """

    rank: int
    advantage: str
    drawback: str
    fact: str = ""


class FollowUp(NamedTuple):
    """A phrase (a regular expression) that asks for more (`direction` 1) or less (-1) than was shown.

    Phrases are applied by `rank`. Of the attributes that share one, the first by rank that a shown product has counts.
    """

    pattern: str
    direction: int
    rank: int


class FeatureWords(NamedTuple):
    """The words for a yes/no feature: its name, words of shoppers, more words of catalogues (`|` separates)."""

    name: str
    asked: str
    stated: str = ""


class FastFrom(NamedTuple):
    """In products of these kinds the feature `feature` means at least `minimum` of the attribute."""

    feature: str
    minimum: int
    kinds: frozenset[str]


class IcecatSource(NamedTuple):
    """The ICEcat columns that hold an attribute in products of these groups (all products if empty).

    Without a value in the columns, `in_title` finds a number in the title. Columns are removed if `replaced`, else they
    stay beside the attribute.
    """

    columns: str
    groups: frozenset[str] = frozenset()
    read: IcecatReader = read_number
    replaced: bool = False
    in_title: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Attribute:
    """Everything about one attribute of products.

    Answers: `fact` is its wording, `large` a threshold, which also divides the value, and the wording from there on.
    `qualified_fact` also has a place for the first of the attributes `qualifiers`. `limit` is the unit of limits in
    words; only attributes with one can be limited. `unknown` says that a product lacks the value. `column`: it is a
    column of products. `ranked`: more is better. `direction` is -1 if less is the advantage in a comparison.

    Questions: `units` behind a number; `kinds` of products in which a unit means this attribute among those that share
    it; in other kinds it does so if `in_other_kinds`, up to `shared_max`. `subject` is the unit that a number without
    one has behind the words `subject_pattern`: at most `max_bare`, and never a maximum if `bare_minimum_only`. `filler`
    is its word between comparison and number; `words` repeat what the number beside them is about. `bare` gives the
    limits of a number without comparison. A value above `excess` has the other unit that `excess` names. `preferences`
    are wishes for more, `preferences_less` for less of it.
    """

    key: str
    fact: str = ""
    limit: str = ""
    column: bool = False
    unknown: str = ""
    capitalised: bool = False
    large: tuple[int, str] | None = None
    qualifiers: tuple[str, ...] = ()
    qualified_fact: str = ""
    units: tuple[Unit, ...] = ()
    kinds: frozenset[str] = frozenset()
    in_other_kinds: bool = True
    shared_max: int | None = None
    subject: str = ""
    subject_pattern: str = ""
    max_bare: int | None = None
    bare_minimum_only: bool = False
    filler: str = ""
    words: str = ""
    bare: Callable[[Decimal], Limits] = at_least
    excess: tuple[int, str] | None = None
    comparison: Comparison | None = None
    direction: int = 1
    ranked: bool = False
    preferences: str = ""
    preferences_less: str = ""
    follow_ups: tuple[FollowUp, ...] = ()
    feature: FeatureWords | None = None
    fast: FastFrom | None = None
    icecat: tuple[IcecatSource, ...] = ()
