"""Speed of the product compared with plain implementations, measured alternately in one run.

    python -m benchmarks.speed [--quick] [words in the names of the wanted rows]

Load generator, server and PostgreSQL share the machine. Prints a table and, when all rows are wanted, writes
build/bench.json, a list of `{name, value, reach, holds}`. It starts its own durable PostgreSQL (fsync and
synchronous_commit on).
"""

import functools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.comparison import Comparison, Figure, Measure, build_table, compare, get_latency_ratio, get_tail_ratio
from benchmarks.database import Pgbench, fill, run_postgres
from benchmarks.workers import ROOT, Sample, Worker

RESULT = ROOT / "build" / "bench.json"
QUESTION = '{"query":"best 5G phone under 12000 with 8GB RAM {n}"}'
USERS = 10_000


@dataclass(frozen=True, slots=True)
class Scale:
    """Duration and size."""

    rounds: int
    seconds: float
    large_users: int
    settling_seconds: float
    """The first change of a page after a checkpoint writes it to the log as a whole. Checkpoints are minutes apart, and
    a small table is through with that at once; a large one is given the time."""


FULL = Scale(rounds=7, seconds=4, large_users=1_000_000, settling_seconds=45)
QUICK = Scale(rounds=3, seconds=0.7, large_users=100_000, settling_seconds=3)


@dataclass(frozen=True, slots=True)
class Bench:
    """The measuring processes."""

    pgbench: Pgbench
    callers: Worker
    load: Worker
    server: Worker
    scale: Scale

    def call(self, operation: str, callers: int, database: str = "small") -> Measure:
        """Measure callers in process."""
        users = USERS if database == "small" else self.scale.large_users
        ask = functools.partial(
            self.callers.measure, database=database, operation=operation, users=users, callers=callers
        )
        return lambda seconds: ask(seconds=seconds)

    def plain(self, clients: int) -> Measure:
        """Measure pgbench."""
        return lambda seconds: self.pgbench.measure(clients, seconds)

    def http(self, method: str, path: str, connections: int, body: str | None = None) -> Measure:
        """Measure requests over HTTP."""
        return lambda seconds: self._send(connections, method, path, seconds, body)

    def empty(self, method: str, path: str, connections: int, body: str | None = None) -> Measure:
        """Measure the same requests to an empty endpoint that returns as many bytes as `path`."""

        def measure(seconds: float) -> Sample:
            size = self._send(1, method, path, 0.01, body).size
            self._send(1, "POST", f"/bench/size?method={method.lower()}&size={size}", 0.01)
            return self._send(connections, method, "/bench/empty", seconds, body)

        return measure

    def beside_empty(
        self, connections: int, method: str, path: str, body: str | None = None
    ) -> tuple[Measure, Measure]:
        """Return the measurements `http` and `empty`."""
        return self.http(method, path, connections, body), self.empty(method, path, connections, body)

    def _send(self, connections: int, method: str, path: str, seconds: float, body: str | None = None) -> Sample:
        command: dict[str, Any] = {"method": method, "path": path, "users": USERS, "body": body}
        port = self.server.ready["port"]
        return self.load.measure(port=port, pid=self.server.pid, connections=connections, seconds=seconds, **command)

    def comparisons(self) -> Iterator[Comparison]:
        """Return the comparisons in the order of the table."""
        for callers, reach in ((32, 1.5), (256, 3.5)):
            yield Comparison(
                f"debit in process ÷ pgbench, {callers} callers",
                self.call("debit", callers),
                self.plain(callers),
                reach,
            )
        yield Comparison(
            "debit of a lone caller ÷ plain statement, latency",
            self.call("debit", 1), self.call("plain debit", 1), 1.25, get_latency_ratio, at_most=True,
        )  # fmt: skip
        for name in ("status", "cached"):
            yield Comparison(
                f"{name} read in process ÷ plain statement, 256 callers",
                self.call(name, 256), self.call(f"plain {name}", 256), 5,
            )  # fmt: skip
        for connections, reach in ((32, 0.65), (256, 0.75)):
            yield Comparison(
                f"debit over HTTP ÷ empty POST, {connections} connections",
                *self.beside_empty(connections, "POST", "/bench/debit"), reach,
            )  # fmt: skip
        yield Comparison(
            "question over HTTP ÷ empty POST, 32 connections",
            *self.beside_empty(32, "POST", "/api/query", QUESTION), 0.45,
        )  # fmt: skip
        yield Comparison(
            "credit status over HTTP ÷ empty GET, 32 connections",
            *self.beside_empty(32, "GET", "/api/credits/status"), 0.65,
        )  # fmt: skip
        yield Comparison(
            f"debits with {self.scale.large_users:,} users ÷ with {USERS:,}, 256 callers",
            self.call("debit", 256, "large"), self.call("debit", 256), 0.85,
            settling_seconds=self.scale.settling_seconds,
        )  # fmt: skip
        yield Comparison(
            "p99 ÷ p50 of debits over HTTP, 32 connections",
            *self.beside_empty(32, "POST", "/bench/debit"), 5, get_tail_ratio, at_most=True,
        )  # fmt: skip


def measure(bench: Bench, console: Console, only: str) -> list[Figure]:
    """Measure every comparison, or those with `only` in their names."""
    figures = []
    for comparison in bench.comparisons():
        if only not in comparison.name:
            continue
        with console.status(comparison.name):
            figures.append(compare(comparison, bench.scale.rounds, bench.scale.seconds))
    return figures


def main(arguments: list[str]) -> None:
    """Measure, print and write."""
    scale = QUICK if "--quick" in arguments else FULL
    only = next((argument for argument in arguments if not argument.startswith("-")), "")
    console, began = Console(width=150, stderr=False), time.monotonic()
    with ExitStack() as stack:
        url, folder = stack.enter_context(run_postgres())
        with console.status("filling the databases"):
            links = {
                "BENCH_SMALL": fill(url, "small", USERS),
                "BENCH_LARGE": fill(url, "large", scale.large_users),
            }
        log = Path(folder) / "processes.log"
        callers, load, server = (
            stack.enter_context(Worker(module, log, links)) for module in ("callers", "load", "served")
        )
        bench = Bench(Pgbench(links["BENCH_SMALL"], folder), callers, load, server, scale)
        figures = measure(bench, console, only)
    console.print(build_table(figures, f"Speed, {time.monotonic() - began:.0f} s"))
    if only:
        return
    RESULT.parent.mkdir(exist_ok=True)
    kept = [{"name": f.name, "value": f.value, "reach": f.reach, "holds": f.holds} for f in figures]
    RESULT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
