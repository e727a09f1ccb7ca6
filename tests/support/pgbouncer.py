"""PgBouncer in transaction mode, in front of a PostgreSQL, for one test."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from shopassist.db.embedded.programs import choose_folder, spawn

PROGRAM = Path("/usr/sbin/pgbouncer")
SERVER_CONNECTIONS = 6
"""Fewer than clients, so that consecutive transactions use different server connections."""

SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
max_client_conn = 1000
default_pool_size = {size}
server_reset_query_always = 0
logfile = {folder}/log
"""


@contextmanager
def run_pgbouncer(
    url: str, users: Mapping[str, str], template: str = SETTINGS, files: Mapping[str, bytes] | None = None
) -> Iterator[str]:
    """Run a pooler in front of the server of `url` for `users` (passwords by name); yield its connection string.

    `template` has the settings, and `files` are those that it names.
    """
    assert PROGRAM.exists(), "install the package pgbouncer: make tools"
    server = make_url(url)
    made = Path(tempfile.mkdtemp(prefix="shopassist-pooler-"))
    made.chmod(0o711)
    folder, account = choose_folder(made)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own_port = int(probe.getsockname()[1])
    settings = template.format(
        host=server.host, port=server.port, own_port=own_port, folder=folder, size=SERVER_CONNECTIONS
    )
    (folder / "settings.ini").write_text(settings)
    (folder / "users").write_text("".join(f'"{name}" "{password}"\n' for name, password in users.items()))
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    for path in (folder, *folder.iterdir()):
        account.give(path)
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    process = spawn([str(PROGRAM), str(folder / "settings.ini")], account, output=output)
    os.close(output)
    try:
        _wait(own_port, process, folder)
        assert Path(f"/proc/{process.pid}").stat().st_uid == pwd.getpwnam(account.name).pw_uid != 0
        name, password = next(iter(users.items()))
        through = server.set(username=name, password=password, port=own_port)
        yield through.render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, (folder / "output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
