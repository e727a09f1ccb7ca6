"""`make bench-tune`: the plain debit of pgbench on a server with PostgreSQL's defaults and on one with our advice."""

import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from benchmarks.database import DURABLE, Pgbench, fill, postgresql
from shopassist.ops.tuning import FALLBACK_COMPRESSION, build_advice, detect_machine

CLIENTS = 32
CONNECTIONS = 100


def main(arguments: list[str]) -> None:
    """Measure in turn and print the medians."""
    rounds, seconds, users = (3, 3, 20_000) if "--quick" in arguments else (7, 10, 200_000)
    advice = {each.name: each.value for each in build_advice(detect_machine(), CONNECTIONS)}
    advice["wal_compression"] = FALLBACK_COMPRESSION  # the embedded PostgreSQL is built without lz4
    sides = {"defaults": DURABLE, "advice": {**DURABLE, **advice}}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    with ExitStack() as stack:
        measures = {}
        for name, settings in sides.items():
            url, folder = stack.enter_context(postgresql(settings))
            measures[name] = Pgbench(fill(url, "tuned", users), Path(folder))
        for turn in range(rounds):
            for name in sorted(sides, reverse=bool(turn % 2)):
                rates[name].append(measures[name].measure(CLIENTS, seconds).rate)
    ratios = [a / b for a, b in zip(rates["advice"], rates["defaults"], strict=True)]
    console = Console(highlight=False)
    for name, values in rates.items():
        console.print(f"{name}: {statistics.median(values):,.0f} debits/s")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    console.print(f"advice ÷ defaults: {statistics.median(ratios):.2f} ({spread}), {users:,} users, {CLIENTS} clients")


if __name__ == "__main__":
    main(sys.argv[1:])
