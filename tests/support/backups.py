"""A database in use, and the commands that back it up."""

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from shopassist.cli import app
from shopassist.db.dsn import normalise_dsn
from shopassist.db.embedded.programs import find_binaries
from shopassist.errors import ShopAssistError
from shopassist.ops.backups import BackupManifest, list_backups, read_manifest
from shopassist.ops.dumps import build_environment
from tests.support.helpers import execute


@dataclass
class Shop:
    """A database in use, and the commands that back it up."""

    url: str
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def database(self) -> str:
        """Return the name of the database."""
        return self.url.rpartition("/")[2]

    async def run(self, *arguments: str, **environment: str) -> Result:
        """Run `shopassist backup …`."""
        with self.monkeypatch.context() as patch:
            for name, value in {"DATABASE_URL": self.url, "BACKUP_FOLDER": str(self.folder), **environment}.items():
                patch.setenv(name, value)
            return await asyncio.to_thread(CliRunner().invoke, app, ["backup", *arguments])

    async def succeed(self, *arguments: str, **environment: str) -> str:
        """Run it, and return its output."""
        result = await self.run(*arguments, **environment)
        assert result.exit_code == 0, result.exception or result.output
        return result.output

    async def fail(self, *arguments: str, **environment: str) -> str:
        """Run it, and return the message of its known error."""
        result = await self.run(*arguments, **environment)
        assert isinstance(result.exception, ShopAssistError), result.exception or result.output
        return result.exception.detail

    async def execute(self, *statements: str) -> None:
        """Execute statements in the database."""
        for statement in statements:
            await execute(self.url, statement)

    async def fetch(self, query: str) -> object:
        """Return one value from the database."""
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    def describe(self) -> str:
        """Return owners, grants, settings, encoding and locale as pg_dump writes them."""
        command = [find_binaries().program("pg_dump"), "--schema-only", "--create", "--no-sync"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=build_environment(normalise_dsn(self.url))
        )
        return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(("\\", "--")))

    def manifest(self) -> BackupManifest:
        """Return the manifest of the newest backup."""
        return read_manifest(self.folder, list_backups(self.folder)[-1])
