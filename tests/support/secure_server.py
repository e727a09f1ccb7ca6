"""A PostgreSQL of Debian's package with TLS, and certificates made by the test."""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from shopassist.db.embedded import server as embedded_server
from shopassist.db.embedded.programs import Binaries
from shopassist.db.embedded.server import EmbeddedPostgres
from tests.support.certificates import Authority
from tests.support.helpers import execute

SYSTEM = Path("/usr/lib/postgresql")


@dataclass
class SecureServer:
    """A PostgreSQL with TLS and a replaceable certificate."""

    folder: Path
    authority: Authority = field(default_factory=lambda: Authority("Authority"))
    stranger: Authority = field(default_factory=lambda: Authority("Stranger"))
    url: str = ""

    def start(self) -> EmbeddedPostgres:
        """Start it with a valid certificate."""
        for name, authority in (("root.crt", self.authority), ("stranger.crt", self.stranger)):
            (self.folder / name).write_bytes(authority.pem)
        self._write(self.authority, "127.0.0.1", timedelta(days=1))
        files = {"ssl_cert_file": str(self.folder / "server.crt"), "ssl_key_file": str(self.folder / "server.key")}
        server = EmbeddedPostgres(self.folder / "data", settings={"fsync": "off", "ssl": "on", **files})
        self.url = server.start()
        return server

    def root(self, name: str = "root.crt") -> str:
        """Write the file of an authority's certificate."""
        return str(self.folder / name)

    async def present(self, authority: Authority, host: str, holds: timedelta = timedelta(days=1)) -> None:
        """Show another certificate from now on."""
        before = await self._shown()
        self._write(authority, host, holds)
        await execute(self.url, "SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while await self._shown() == before:
            assert time.monotonic() < deadline, "the server goes on with its old certificate"
            await asyncio.sleep(0.05)

    async def _shown(self) -> str:
        """Return the certificate as OpenSSL shows it."""
        host = self.url.rpartition("@")[2].partition("/")[0]
        command = ["openssl", "s_client", "-starttls", "postgres", "-connect", host]
        shown = await asyncio.to_thread(subprocess.run, command, input=b"", capture_output=True, check=False)
        return shown.stdout.decode().partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]

    def _write(self, authority: Authority, host: str, holds: timedelta) -> None:
        certificate, key = authority.issue(host, holds)
        for name, content in (("server.crt", certificate), ("server.key", key)):
            file = self.folder / name
            file.write_bytes(content)
            file.chmod(0o600)
            if os.geteuid() == 0:
                users = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
                os.chown(file, users.get("postgres", users["nobody"]), -1)


@contextmanager
def run_secure_server() -> Iterator[SecureServer]:
    """Run a server of the newest Debian package for the length of the block."""
    folders = sorted(SYSTEM.glob("*/bin"), key=lambda path: int(path.parent.name))
    assert folders, "install the package postgresql: make tools"
    folder = Path(tempfile.mkdtemp(prefix="shopassist-tls-"))
    folder.chmod(0o711)
    server = SecureServer(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_server, "find_binaries", lambda: Binaries(folders[-1], int(folders[-1].parent.name)))
        postgres = server.start()
        try:
            yield server
        finally:
            postgres.stop()
            shutil.rmtree(folder, ignore_errors=True)
