"""Measurements of each fault: a printed table, and `build/faults.json`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULT = Path(__file__).resolve().parents[2] / "build" / "faults.json"


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its limit; without a `reach` it is only reported."""

    name: str
    value: float
    reach: float | None
    at_most: bool = True
    fault: str = ""

    @property
    def holds(self) -> bool:
        """Return whether it is within its limit."""
        return self.reach is None or (self.value <= self.reach if self.at_most else self.value >= self.reach)

    def of(self, fault: str) -> "Figure":
        """Return the same figure for a fault."""
        return replace(self, fault=fault)


def table_of(figures: Sequence[Figure]) -> Table:
    """Return a table with one row per fault and one column per figure."""
    names = list(dict.fromkeys(figure.name for figure in figures))
    table = Table("fault", *names, title="What faults did")
    for fault in dict.fromkeys(figure.fault for figure in figures):
        row = {figure.name: figure for figure in figures if figure.fault == fault}
        cells = (row.get(name) for name in names)
        table.add_row(fault, *("" if cell is None else f"{cell.value:g}{'' if cell.holds else ' !'}" for cell in cells))
    return table


def publish(figures: Sequence[Figure]) -> None:
    """Print the table and update the file, keeping the faults of other runs."""
    Console(width=200).print(table_of(figures))
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    found = {f"{f.fault}: {f.name}": {"value": f.value, "reach": f.reach, "holds": f.holds} for f in figures}
    kept = [entry for entry in kept if entry["name"] not in found]
    kept += [{"name": name, **entry} for name, entry in found.items()]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
