"""`shopassist serve` as users run it: start, stop, kill, and errors in one sentence."""

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
GUEST = {"X-Session-ID": "g2wsht", "Content-Type": "application/json"}
QUESTION = "best 5G phone under ₹12,000 with 8GB RAM"

Serve = Callable[..., "Served"]


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A server process."""

    def __init__(self, folder: Path, arguments: list[str] | None = None, **environment: str) -> None:
        """Start a server with its data in `folder`."""
        self.port = int(environment.get("API_PORT", free_port()))
        self.address = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process = subprocess.Popen(
            arguments or [sys.executable, "-m", "shopassist", "serve"],
            env={
                **os.environ,
                "PYTHONPATH": str(PROJECT),
                "SHOPASSIST_DATA": str(folder),
                "API_PORT": str(self.port),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )

    def request(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Return the JSON response of a path."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers or GUEST)  # noqa: S310 - it is ours
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    def wait_until_ready(self, seconds: float = 30) -> "Served":
        """Wait until the server answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.request("/health")
            except OSError:
                time.sleep(0.02)
            else:
                return self
        raise AssertionError(self.output())

    def wait_for_end(self, seconds: float = 20) -> int:
        """Stop the server and return its exit code."""
        return self.process.wait(seconds)

    def output(self) -> str:
        """Return all output, after the process ended."""
        self.process.kill()
        return self.process.communicate()[0].decode()

    def database_process(self) -> int:
        """Return the process id of its PostgreSQL."""
        return int((self.folder / "postgresql" / "postmaster.pid").read_text().splitlines()[0])


def runs(process_id: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(*process_ids: int, seconds: float = 10) -> None:
    """Wait for the end of processes that are not children of the test."""
    deadline = time.monotonic() + seconds
    while any(map(runs, process_ids)):
        assert time.monotonic() < deadline, process_ids
        time.sleep(0.05)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a data folder that PostgreSQL's account can enter."""
    with tempfile.TemporaryDirectory(prefix="shopassist-serve-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Return a function that starts servers, which end with the test."""
    started: list[Served] = []

    def start(*arguments: str, **environment: str) -> Served:
        started.append(Served(folder, list(arguments), **environment))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.terminate()
            try:
                served.process.wait(15)
            except subprocess.TimeoutExpired:
                served.process.kill()
        if served.process.stdout:
            served.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_first_answer_then_a_clean_stop_then_everything_is_still_there(serve: Serve, number: signal.Signals) -> None:
    """A stop ends all processes with 0; balance and answer are kept for the next start."""
    first = serve().wait_until_ready()
    answer = first.request("/api/query", {"query": QUESTION})
    assert answer["products"]
    assert answer["metadata"]["charged"] == 1
    database = first.database_process()
    first.process.send_signal(number)
    assert first.wait_for_end() == 0
    assert not runs(database)
    second = serve().wait_until_ready()
    assert second.request("/api/user/credits")["available_credits"] == 9
    again = second.request("/api/query", {"query": QUESTION})
    assert (again["cached"], again["products"]) == (True, answer["products"])


def test_killed_it_leaves_nothing_behind_and_loses_nothing(serve: Serve) -> None:
    """After SIGKILL its PostgreSQL stops, and a paid answer is still there after the next start."""
    first = serve().wait_until_ready()
    first.request("/api/query", {"query": QUESTION})
    database = first.database_process()
    first.process.kill()
    wait_until_gone(database)
    assert serve().wait_until_ready().request("/api/user/credits")["available_credits"] == 9


def test_a_parent_that_is_killed_takes_it_along(serve: Serve) -> None:
    """With `--with-parent`, as `make serve` starts it, SIGKILL of `make` ends server and database."""
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'shopassist', 'serve', '--with-parent']);"
        "open('server.pid', 'w').write(str(p.pid)); p.wait()"
    )
    parent = serve(sys.executable, "-c", program).wait_until_ready()
    server = int((parent.folder / "server.pid").read_text())
    database = parent.database_process()
    parent.process.kill()
    wait_until_gone(server, database, seconds=12)


def test_a_database_that_dies_is_started_again(serve: Serve) -> None:
    """Questions are answered again within 5 seconds after PostgreSQL was killed."""
    served = serve().wait_until_ready()
    os.kill(served.database_process(), signal.SIGKILL)
    deadline = time.monotonic() + 5
    while True:
        try:
            assert served.request("/api/user/credits")["available_credits"] == 10
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_several_workers_are_one_service(serve: Serve) -> None:
    """Two worker processes share the embedded database; SIGTERM ends all with 0."""
    served = serve(WORKERS="2").wait_until_ready()
    assert served.request("/api/query", {"query": QUESTION})["metadata"]["charged"] == 1
    assert {served.request("/api/user/credits")["available_credits"] for _ in range(10)} == {9}
    database = served.database_process()
    served.process.terminate()
    assert served.wait_for_end() == 0
    assert not runs(database)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux shows processes this way")
@pytest.mark.parametrize("ready", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_workers_do_not_outlive_their_parent(serve: Serve, ready: bool) -> None:
    """If the server is killed, workers end and the database stops, even while they start."""
    served = serve(WORKERS="2")
    if ready:
        served.wait_until_ready(90)
    deadline = time.monotonic() + 90
    while len(workers := [pid for pid in processes_below(served.process.pid) if "spawn_main" in arguments_of(pid)]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    everything = [*processes_below(served.process.pid)[1:], *workers, served.database_process()]
    served.process.kill()
    wait_until_gone(*everything, seconds=60)


def arguments_of(pid: int) -> str:
    """Return the arguments of a process; nothing if it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def test_a_named_database_is_used_and_the_embedded_one_never_touched(
    serve: Serve, folder: Path, database_url: str
) -> None:
    """With `DATABASE_URL` the data folder only contains the secret."""
    served = serve(DATABASE_URL=database_url).wait_until_ready()
    assert served.request("/api/query", {"query": QUESTION})["metadata"]["charged"] == 1
    assert [path.name for path in folder.iterdir()] == ["secret.key"]


def sentence(served: Served) -> str:
    """Return the only line that a failing start prints."""
    assert served.wait_for_end() != 0
    [line] = served.output().strip().splitlines()
    return line


def test_a_busy_port_is_said_in_one_sentence(serve: Serve) -> None:
    """The error names the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port} " in sentence(serve(API_PORT=port))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "postgresql://user:hidden@127.0.0.1:1/d", "127.0.0.1:1/d cannot be reached"),
        ("DATABASE_URL", "hidden", "DATABASE_URL"),
        ("DB_POOL_SIZE", "many", "DB_POOL_SIZE"),
    ],
)
def test_a_setting_that_cannot_work_is_said_in_one_sentence(serve: Serve, name: str, value: str, said: str) -> None:
    """The error names the setting, without its secret part."""
    line = sentence(serve(**{name: value}))
    assert said in line
    assert "hidden" not in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_production_without_a_secret_is_said_in_one_sentence(serve: Serve, folder: Path, workers: str) -> None:
    """The error is reported before workers and the database are started."""
    assert "SECRET_KEY is not set" in sentence(serve(ENVIRONMENT="production", WORKERS=workers))
    assert list(folder.iterdir()) == []


def test_memory_refuses_a_second_process(serve: Serve) -> None:
    """Data in memory cannot be shared by two processes."""
    assert "WORKERS" in sentence(serve(STORAGE="memory", WORKERS="2"))


def test_a_data_folder_of_another_version_is_said_in_one_sentence(serve: Serve, folder: Path) -> None:
    """The error names the folder and the versions."""
    cluster = folder / "postgresql"
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("12\n")
    if os.geteuid() == 0:
        os.chown(cluster, pwd.getpwnam("nobody").pw_uid, -1)
    assert "PostgreSQL 12" in sentence(serve())


def test_memory_needs_no_database(serve: Serve, folder: Path) -> None:
    """`STORAGE=memory` answers from the sample catalogue and keeps nothing."""
    served = serve(STORAGE="memory").wait_until_ready()
    assert served.request("/api/query", {"query": QUESTION})["metadata"]["charged"] == 1
    assert list(folder.iterdir()) == []


def test_a_token_of_the_command_line_is_believed_on_loopback_only(serve: Serve) -> None:
    """Tokens of `shopassist token` are accepted, unless the server listens on another address."""
    served = serve().wait_until_ready()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "SHOPASSIST_DATA": str(served.folder)}
    minted = subprocess.run(
        [sys.executable, "-m", "shopassist", "token", "--sub", "auth0|me", "--admin"],
        env=environment,
        capture_output=True,
        check=True,
        cwd=served.folder,
    )
    headers = {"Authorization": f"Bearer {minted.stdout.decode().strip()}"}
    assert served.request("/api/user/me", headers=headers)["user_id"] == "auth0|me"
    assert served.request("/api/consent/admin/all", headers=headers) == []
    served.process.terminate()
    served.wait_for_end()
    production = {"ENVIRONMENT": "production", "SECRET_KEY": "s" * 32}
    for setting in ({"API_HOST": "0.0.0.0"}, production):  # noqa: S104
        open_to_all = serve(**setting).wait_until_ready()
        with pytest.raises(OSError, match="401"):
            open_to_all.request("/api/user/me", headers=headers)
        open_to_all.process.terminate()
        open_to_all.wait_for_end()


def processes_below(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread or process that has ended meanwhile
            children += map(int, thread.read_text().split())
    return [pid, *(below for child in children for below in processes_below(child))]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux shows processes this way")
def test_no_process_shows_a_secret(serve: Serve) -> None:
    """Secrets are not in arguments of processes, the environment of the embedded database, or the log."""
    secrets = {"SECRET_KEY": "markedsecretkey-0123456789-0123456789", "GEMINI_API_KEY": "markedmodelkey"}
    served = serve(LOG_LEVEL="debug", **secrets).wait_until_ready(90)
    shown = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in processes_below(served.process.pid)}
    databases = [pid for pid, arguments in shown.items() if "postgres" in arguments.split("\0")[0]]
    assert databases
    for pid in databases:
        with contextlib.suppress(PermissionError):
            shown[pid] += Path(f"/proc/{pid}/environ").read_text()
    served.process.terminate()
    served.wait_for_end()
    everything = " ".join(shown.values()) + served.output()
    assert not [name for name, secret in secrets.items() if secret in everything]
