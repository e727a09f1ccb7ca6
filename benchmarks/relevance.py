"""Relevance of the catalogue search: NDCG over judged queries, compared with known baselines.

    python benchmarks/relevance.py [postgresql://…]

Without a connection string it starts a temporary PostgreSQL. A given database must be migrated; the electronics
catalogue
is imported into it. The data is read from SHOPASSIST_SHARED_DATA (default: ../shared/data).
"""

import asyncio
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from containers import Container
from shopassist.catalog.importer.importer import import_catalog, plan_import
from shopassist.catalog.models import Criteria, words_of
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.query.models import ConversationContext
from shopassist.settings import Settings, Storage, StorageSettings
from shopassist.settings.database import DatabaseConfig

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHOPASSIST_SHARED_DATA", PROJECT.parent / "shared" / "data"))
BASELINES = (
    ("websearch_to_tsquery, ts_rank_cd", 0.69),
    ("any term, ts_rank_cd", 0.57),
    ("any term, by matched terms, then ts_rank", 0.72),
    ("BM25, title x 3 + brand + description", 0.735),
    ("BM25 joined with sentence embeddings", 0.763),
)
WHOLE, SHOWN = 10, 3

Search = Callable[[str], Awaitable[list[str]]]
"""Returns the ids of products for a query, the best first."""


@dataclass(frozen=True)
class Judged:
    """Queries by id, and their judgements: query id → product id → 0 to 3."""

    queries: dict[str, str]
    grades: dict[str, dict[str, int]]

    def ndcg(self, query_id: str, found: list[str], depth: int) -> float | None:
        """Return NDCG with exponential gain, unjudged products as 0; None without a relevant product."""
        grades = self.grades[query_id]
        ideal = _gain(sorted(grades.values(), reverse=True)[:depth])
        return _gain([grades.get(product, 0) for product in found[:depth]]) / ideal if ideal else None


def _gain(grades: list[int]) -> float:
    return sum((2.0**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades))


def read_judgements() -> Judged:
    """Read the judgements of the shared data."""
    lines = [line.split("\t") for line in (DATA / "relevance" / "qrels.tsv").read_text().splitlines()]
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    for query_id, product_id, grade in lines:
        grades[query_id][product_id] = int(grade)
    queries = (DATA / "relevance" / "queries.tsv").read_text().splitlines()
    return Judged(dict(line.split("\t", 1) for line in queries), grades)


def catalogue_search(container: Container, field: str) -> Search:
    """Search only the catalogue, with the words of the query as `field` (`terms` or `preferences`) of the criteria."""

    async def search(query: str) -> list[str]:
        criteria = Criteria.model_validate({field: tuple(words_of(query))})
        return [product.source_id for product in await container.catalog().search(criteria, WHOLE)]

    return search


def assistant_search(container: Container, ids: dict[str, list[str]]) -> Search:
    """Ask the whole assistant and identify its products by their titles."""

    async def search(query: str) -> list[str]:
        answer = await container.assistant().answer(query, ConversationContext())
        return [product_id for product in answer.products for product_id in ids[product.title][:1]]

    return search


async def measure(search: Search, judgements: Judged, depth: int) -> tuple[str, str, str, str]:
    """Return the mean NDCG of all and of answerable queries, the queries without results, and milliseconds."""
    started = time.perf_counter()
    found = {query_id: await search(query) for query_id, query in judgements.queries.items()}
    spent = (time.perf_counter() - started) / len(found)
    scores = [judgements.ndcg(query_id, products, depth) for query_id, products in found.items()]
    known = [score for score in scores if score is not None]
    empty = sum(not products for products in found.values())
    return f"{sum(known) / len(scores):.3f}", f"{sum(known) / len(known):.3f}", str(empty), f"{spent * 1000:.1f}"


async def run(url: str) -> None:
    """Import, search and print."""
    database = DatabaseConfig(database_url=SecretStr(url))
    container = Container(settings=Settings(database=database, storage=StorageSettings(storage=Storage.POSTGRES)))
    plan = plan_import(DATA / "catalog-electronics.jsonl.gz")
    ids: dict[str, list[str]] = defaultdict(list)
    for row in plan.file.read_rows():
        product = plan.builder.build(row.values or {})
        ids[product.title].append(product.source_id)
    await import_catalog(plan, container.unit_of_work())
    judgements = read_judgements()
    table = Table("search", "NDCG, all queries", "NDCG, answerable", "empty", "ms a query", title="Relevance")
    for name, figure in BASELINES:
        table.add_row(f"known: {name} (both halves)", str(figure), "", "", "")
    for name, search, depth in (
        ("catalogue, words as preferences @10", catalogue_search(container, "preferences"), WHOLE),
        ("catalogue, words as terms @10", catalogue_search(container, "terms"), WHOLE),
        ("assistant @3", assistant_search(container, ids), SHOWN),
    ):
        table.add_row(name, *(await measure(search, judgements, depth)))
    Console(width=120).print(table)
    print("All queries: those without any relevant product among the judged count as 0; answerable: without them.")
    await container.shutdown()


def main() -> None:
    """Run on the given database or on a temporary one."""
    if len(sys.argv) > 1:
        asyncio.run(run(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory(prefix="shopassist-relevance-") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "data", settings={"fsync": "off"})
        try:
            url = server.start()
            asyncio.run(migrate.upgrade(normalise_dsn(url)))
            asyncio.run(run(url))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
