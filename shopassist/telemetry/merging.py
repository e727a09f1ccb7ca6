"""The figures of several processes as those of one service."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from shopassist.telemetry.figures import Across, Family, Kind, Labels, Value


def merged(processes: Iterable[Sequence[Family]]) -> list[Family]:
    """Families of every process put together: counts are added, gauges as each family says."""
    together: dict[str, Family] = {}
    for families in processes:
        for family in families:
            known = together.get(family.name)
            together[family.name] = family if known is None else _both(known, family)
    return list(together.values())


def _both(one: Family, other: Family) -> Family:
    if one.kind is Kind.GAUGE and one.across is Across.LATEST:
        return max(one, other, key=lambda family: family.at)
    samples: dict[Labels, Value] = dict(one.samples)
    for labels, value in other.samples.items():
        samples[labels] = _put(one, samples[labels], value) if labels in samples else value
    return replace(one, samples=samples)


def _put(family: Family, one: Value, other: Value) -> Value:
    if isinstance(one, list) and isinstance(other, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    if isinstance(one, list) or isinstance(other, list):
        raise TypeError(family.name)
    return max(one, other) if family.kind is Kind.GAUGE and family.across is Across.MOST else one + other


def counts_only(families: Iterable[Family]) -> list[Family]:
    """What stays true of a process that has ended: what it counted, not what it was like."""
    return [family for family in families if family.kind is not Kind.GAUGE]


def written(family: Family) -> list[Any]:
    """A family as JSON has it."""
    samples = [[list(labels), value] for labels, value in family.samples.items()]
    return [
        *(family.name, family.kind, family.help, samples, list(family.labels)),
        *(family.across, list(family.bounds), family.at),
    ]


def read(row: list[Any]) -> Family:
    """What `written` wrote."""
    name, kind, help_, samples, labels, across, bounds, at = row
    return Family(
        name,
        Kind(kind),
        help_,
        {tuple(key): value for key, value in samples},
        tuple(labels),
        Across(across),
        tuple(bounds),
        at,
    )
