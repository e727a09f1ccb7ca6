"""The profile `scale` of compose.yaml without Docker: its files and commands, run by this machine's programs.

Each service gets its own copy of the files that compose mounts. Replaced are only `/etc/…`, `/run/…` and the data
folder
(by folders of the test), names and addresses of services (by 127.0.0.1), and ports (by free ones). Each app is one
process with the scripted assistant of `tests.support.servers`.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shopassist.db.embedded.programs import choose_folder, find_binaries, make_runnable, spawn, stop_process
from tests.support.compose import compose, interpolate
from tests.support.servers import PROJECT, TestServer

PROGRAMS = {"pgbouncer": "/usr/sbin/pgbouncer", "redis": "/usr/bin/redis-server", "nginx": "/usr/sbin/nginx"}
VARIABLES = {
    **{f"{name}_PASSWORD": name.lower().replace("_", "") for name in ("POSTGRES", "DB_OWNER", "DB_APP", "DB_READ")},
    "DB_REPLICATION_PASSWORD": "replication",
    "REDIS_PASSWORD": "redis",
    "SECRET_KEY": "s" * 32,
}
LISTENING = {"database": 5432, "standby": 5432, "pgbouncer": 6432, "redis": 6379, "nginx": 8080}
ADDRESSES = {"172.30.250.11": "app-1", "172.30.250.12": "app-2"}
DATA = "/var/lib/postgresql/18/docker"
START_SECONDS = 40.0


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Scale:
    """Services by their names in compose.yaml."""

    def __init__(self, folder: Path) -> None:
        """Choose ports. `folder` must be accessible to other accounts."""
        self.folder, self._account = choose_folder(folder)
        self._account.give(self.folder)
        self._binaries = make_runnable(self._account, find_binaries())
        self.ports = {name: free_port() for name in LISTENING}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.apps: dict[str, TestServer] = {}
        self.started: set[str] = set()

    def place(self, service: str) -> Path:
        """Return the folder of a service, with its copy of the mounted files."""
        place = self.folder / service
        if not place.exists():
            (place / "run").mkdir(parents=True)
            for volume in self._part(service).get("volumes", ()):
                source, target, *_ = volume.split(":")
                if source.startswith("."):
                    shutil.copytree(PROJECT / source, place / target.rpartition("/")[2])
            for path in (place, *place.rglob("*")):
                if path.is_file():
                    path.write_text(self._replaced(service, path.read_text()))
                self._account.give(path)
        return place

    def environment(self, service: str) -> dict[str, str]:
        """Return its environment variables."""
        given = self._part(service)["environment"]
        return {
            name: self._replaced(service, interpolate(str(value), VARIABLES))
            for name, value in given.items()
            if value is not None  # passed on from .env, which these tests do not have
        }

    def initialise(self) -> None:
        """Initialise an empty volume of `database` as PostgreSQL's image does."""
        place, environment = self.place("database"), self.environment("database")
        password = place / "run" / "password"
        password.write_text(environment["POSTGRES_PASSWORD"])
        self._account.give(password)
        self.run(
            "database",
            "initdb",
            f"--pgdata={place}/data",
            f"--username={environment['POSTGRES_USER']}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            *environment["POSTGRES_INITDB_ARGS"].split(),
        )
        self.start("database")
        self.sql("database", f"CREATE DATABASE {environment['POSTGRES_DB']}", of="postgres")

    def run(self, service: str, *command: str, **changed: str) -> str:
        """Run a command, by default the service's own, to its end and return its output."""
        with self._spawn(service, command or self._command(service), changed, subprocess.PIPE) as process:
            said = process.communicate(timeout=60)[0].decode()
        assert process.returncode == 0, said
        return said

    def start(self, service: str) -> None:
        """Start a service and wait until it listens. The calling thread must outlive it."""
        log = os.open(self.place(service) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._account.give(self.place(service) / "log")  # as Docker does: nginx opens it by name
        self.processes[service] = self._spawn(service, self._command(service), {}, log)
        os.close(log)
        deadline = time.monotonic() + START_SECONDS
        while not self._listens(service):
            assert self.processes[service].poll() is None, self.said(service)
            assert time.monotonic() < deadline, self.said(service)
            time.sleep(0.05)

    def start_app(self, service: str, **changed: str) -> TestServer:
        """Start an app, with some settings `changed`."""
        self.started.add(service)
        environment = {**self.environment(service), "WORKERS": "1", **changed}
        self.apps[service] = TestServer(self.folder, environment.pop("DATABASE_URL"), **environment)
        self.ports[service] = self.apps[service].port
        return self.apps[service]

    def sql(self, service: str, statement: str, of: str = "shopassist") -> str:
        """Run a statement as an administrator over the socket, and return the output."""
        socket_ = str(self.place(service) / "run")
        port = str(self.ports[service])
        chosen = {"PGHOST": socket_, "PGPORT": port, "PGUSER": "shopassist", "PGDATABASE": of, "PGPASSWORD": ""}
        return self.run(service, "psql", "--no-psqlrc", "-Atc", statement, **chosen).strip()

    def link(self, service: str) -> str:
        """Return an administrator's connection string."""
        return f"postgresql://shopassist:{VARIABLES['POSTGRES_PASSWORD']}@127.0.0.1:{self.ports[service]}/shopassist"

    def kill(self, service: str) -> None:
        """Send SIGKILL to it and its children."""
        process = self.processes.pop(service)
        for pid in (
            process.pid,
            *map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()),
        ):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait(10)

    def said(self, service: str) -> str:
        """Return its log."""
        return (self.place(service) / "log").read_text()

    def stop(self) -> None:
        """Stop everything."""
        for app in self.apps.values():
            app.kill()
        for process in reversed(self.processes.values()):
            stop_process(process, 5)

    def _part(self, service: str) -> Any:
        return compose()["services"][service]

    def _command(self, service: str) -> list[str]:
        self.started.add(service)
        part = self._part(service)
        command = [self._replaced(service, word) for word in (*part.get("entrypoint", ()), *part.get("command", ()))]
        if "postgres" in command:
            command += [f"-cport={self.ports[service]}", f"-cunix_socket_directories={self.place(service)}/run"]
        return command

    def _replaced(self, service: str, text: str) -> str:
        place = self.folder / service
        text = text.replace(DATA, f"{place}/data").replace("/etc/", f"{place}/")
        text = text.replace("/run/pgbouncer", f"{place}/run").replace("/run/nginx", f"{place}/run")
        for address, app in ADDRESSES.items():
            text = text.replace(f"{address}:8000", f"127.0.0.1:{self.ports.get(app, 0)}")
        text = text.replace("172.30.250.10/32", "127.0.0.1/32")
        for name, port in LISTENING.items():
            own = self.ports[name]
            text = text.replace(f"{name}:{port}", f"127.0.0.1:{own}")
            text = text.replace(f"host={name} port={port}", f"host=127.0.0.1 port={own}")
        both = f"{self.ports['database']},{self.ports['standby']}"
        text = {"database,standby": "127.0.0.1,127.0.0.1", "5432,5432": both}.get(text, text)
        text = text.replace("listen_port = 6432", f"listen_port = {self.ports['pgbouncer']}")
        text = text.replace("listen 8080", f"listen {self.ports['nginx']}")
        return text.replace("bind * -::*", f"bind 127.0.0.1\nport {self.ports['redis']}")

    def _spawn(
        self, service: str, command: Sequence[str], changed: Mapping[str, str], output: int
    ) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join((str(self._binaries.folder), "/usr/sbin", os.defpath))
        environment = {"PATH": path, "PGDATA": f"{self.place(service)}/data", **self._variables(service), **changed}
        return spawn(["/usr/bin/env", *command], self._account, output=output, environment=environment)

    def _variables(self, service: str) -> dict[str, str]:
        return self.environment(service) if "environment" in self._part(service) else {}

    def _listens(self, service: str) -> bool:
        if service in {"database", "standby"}:
            arguments = ("--quiet", "--host=127.0.0.1", f"--port={self.ports[service]}")
            with suppress(AssertionError):
                self.run(service, "pg_isready", *arguments)
                return True
            return False
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.ports[service]), 1).close()
            return True
        return False


def provision(scale: Scale) -> None:
    """Run `provision` as compose does."""
    _, *arguments = compose()["services"]["provision"]["command"]
    environment = {**os.environ, **scale.environment("provision"), "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-m", "shopassist", *arguments], env=environment, check=True, cwd=scale.folder)


@contextmanager
def run_scale() -> Iterator[Scale]:
    """Prepare the services without starting any, and stop all that were started behind the block."""
    for name, program in PROGRAMS.items():
        assert Path(program).exists(), f"install {name}: make tools"
    folder = Path(tempfile.mkdtemp(prefix="shopassist-scale-"))
    folder.chmod(0o711)
    scale = Scale(folder)
    try:
        yield scale
    finally:
        scale.stop()
        shutil.rmtree(folder, ignore_errors=True)
