"""A shop that imports catalogue files."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from shopassist.catalog.importer.importer import ImportOptions, ImportReport, import_catalog, plan_import
from shopassist.catalog.memory import MemoryCatalogRepository
from shopassist.catalog.models import Product
from shopassist.db.memory import MemorySession, MemoryStore
from shopassist.db.ports import SystemClock, UnitOfWork
from shopassist.storage.repositories import Repositories


@dataclass
class Shop:
    """A catalogue in memory and a folder for files."""

    folder: Path
    store: MemoryStore = field(default_factory=lambda: MemoryStore(SystemClock()))

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[Repositories]:
        """Return a unit of work with only the catalogue."""
        yield Repositories(MemorySession(self.store), catalog=MemoryCatalogRepository)

    def file(self, name: str, content: str | bytes | list[Any]) -> Path:
        """Write a file with this content; a list becomes JSON lines."""
        if isinstance(content, list):
            content = "\n".join(json.dumps(row) for row in content)
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    async def take(self, path: Path, **options: Any) -> ImportReport:
        """Import a file."""
        plan = plan_import(path, ImportOptions(**options))
        return await import_catalog(plan, cast("UnitOfWork[Repositories]", self.unit_of_work))

    def product(self, source_id: str) -> Product:
        """Return the stored product with this id."""
        [product] = [entry for entry in self.store.table(Product).values() if entry.source_id == source_id]
        return product

    def rejects(self, path: Path) -> list[dict[str, Any]]:
        """Return the reasons in the reject file beside `path`."""
        content = path.with_name(f"{path.name}.rejects.jsonl").read_text()
        return [json.loads(line) for line in content.splitlines()]


def row(number: int = 1, **values: Any) -> dict[str, Any]:
    """Build a row that is accepted unless `values` make it invalid."""
    return {"id": number, "title": f"Thing {number}", "price": "9.99", "currency": "USD"} | values
