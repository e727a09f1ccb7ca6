"""A PostgreSQL of a test's own, which goes away and comes back on the same port."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shopassist.db.embedded import EmbeddedPostgres


class OwnPostgres:
    """A server that is started and stopped at will; its link stays the same."""

    def __init__(self, folder: Path) -> None:
        """Its data is kept in `folder`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._server = EmbeddedPostgres(folder / "data", settings={"fsync": "off", "port": str(self.port)})
        self.url = ""

    def start(self) -> "OwnPostgres":
        """Start it."""
        chosen = self._server.start()
        host, _, name = chosen.rpartition(":")
        self.url = f"{host}:{self.port}/{name.partition('/')[2]}"
        return self

    def logs(self) -> list[Path]:
        """What the server itself has written."""
        return list(self._server.data_directory.rglob("*.log"))

    def stop(self) -> None:
        """Stop it: nothing answers any more."""
        self._server.stop()


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A server that runs, and is gone behind the block."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-own-"))
    folder.chmod(0o711)
    server = OwnPostgres(folder)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
