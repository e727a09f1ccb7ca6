"""What `shopassist serve` prints, where it cannot print, and that two servers never share a port."""

import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shopassist.asgi import bind_socket, find_command, print_address
from shopassist.errors import StartupError
from shopassist.settings import ServerSettings, Settings

PROJECT = Path(__file__).resolve().parents[2]
SERVE = f"exec {shlex.quote(sys.executable)} -m shopassist serve"
Start = Callable[..., subprocess.Popen[bytes]]


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a server in memory, with redirections of the shell."""
    started: list[subprocess.Popen[bytes]] = []

    def run(redirections: str = "", **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"{SERVE} {redirections}"],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "STORAGE": "memory", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def ask(port: int) -> int:
    """Ask a question and return its status, once the server answers."""
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            headers = {"X-Session-ID": "g2wsht", "Content-Type": "application/json"}
            connection.request("POST", "/api/query", json.dumps({"query": "phone"}), headers)
            return connection.getresponse().status
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        finally:
            connection.close()


def test_an_output_that_takes_nothing_ends_no_server(start: Start) -> None:
    """Full, closed, or a pipe without a reader: requests are answered and the end is clean."""
    ports = {redirection: free_port() for redirection in ("> /dev/full 2>&1", ">&- 2>&-", "")}
    servers = {
        redirection: start(redirection, API_PORT=str(port), LOG_LEVEL="debug") for redirection, port in ports.items()
    }
    for stream in (servers[""].stdout, servers[""].stderr):
        assert stream
        stream.close()
    for redirection, port in ports.items():
        assert [ask(port) for _ in range(3)] == [200] * 3, redirection
    for redirection, process in servers.items():
        process.terminate()
        assert process.wait(20) == 0, redirection


def test_an_output_without_the_rupee_sign_ends_no_server(start: Start) -> None:
    """The example is printed as JSON allows it; API_PORT=0 prints the port in use."""
    process = start("2> /dev/full", API_PORT="0", PYTHONIOENCODING="ascii")
    assert process.stdout
    first = process.stdout.readline().decode()
    found = re.search(r"serves on http://127\.0\.0\.1:(\d+) ", first)
    assert found
    assert ask(int(found[1])) == 200
    process.terminate()
    rest = process.stdout.read().decode()
    assert process.wait(20) == 0
    body = re.search(r"-d '(.*)'", rest)
    assert body
    assert "₹12,000" in json.loads(body[1])["query"]
    assert "token" not in rest


def test_two_servers_on_one_port_never_both_serve(start: Start) -> None:
    """Started together: one serves, the other ends with one sentence."""
    port = free_port()
    both = [start(API_PORT=str(port)) for _ in range(2)]
    deadline = time.monotonic() + 30
    while not (ended := [process for process in both if process.poll() is not None]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    output, errors = ended[0].communicate()
    assert (ended[0].returncode, output) == (1, b"")
    assert re.fullmatch(rf"shopassist: Port {port} on 127\.0\.0\.1 cannot be used [^\n]*\n", errors.decode())
    [other] = set(both) - set(ended)
    assert ask(port) == 200
    other.terminate()
    assert other.wait(20) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])  # noqa: S104
def test_a_port_is_taken_from_the_first_moment(host: str) -> None:
    """Before the database is prepared, which may take minutes."""
    with bind_socket(ServerSettings(host=host, port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(StartupError, match=f"Port {port} "):
            bind_socket(ServerSettings(host=host, port=port))


@pytest.mark.parametrize(
    "host", ["nohost.invalid", "203.0.113.7", "2001:db8::7", "127.0.0.1:8000", "http://127.0.0.1", "a..b", "999.1.1.1"]
)
def test_a_host_that_is_not_here_is_named(host: str) -> None:
    """The port is not to blame."""
    with pytest.raises(StartupError, match=rf"^API_HOST={re.escape(host)} is not an address of this machine: .*\.$"):
        bind_socket(ServerSettings(host=host, port=0))


def test_serve_names_the_host(start: Start) -> None:
    """In one sentence."""
    process = start(API_HOST="nohost.invalid")
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, b"")
    assert re.fullmatch(r"shopassist: API_HOST=nohost\.invalid [^\n]*\.\n", errors.decode())


@pytest.mark.parametrize(
    ("embedded", "server", "hinted"),
    [
        (True, ServerSettings(), True),
        (True, ServerSettings(host="::1"), True),
        (False, ServerSettings(), False),
        (True, ServerSettings(host="0.0.0.0"), False),  # noqa: S104
        (True, ServerSettings(environment="prod"), False),
    ],
)
def test_tokens_are_hinted_at_where_they_are_accepted(
    embedded: bool, server: ServerSettings, hinted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere the hint would lead to a 401."""
    print_address(Settings(embedded_database=embedded, server=server), None)
    assert ("token --sub" in capsys.readouterr().out) is hinted


@pytest.mark.parametrize("installation", ["on PATH", "beside python", "folder with a space", "without a script"])
def test_the_command_of_the_hint_exists(installation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image it is on PATH, in a checkout below the working folder, and a copy of the sources has none."""
    folder = tmp_path / ("a folder" if "space" in installation else ".venv") / "bin"
    folder.mkdir(parents=True)
    python, script = folder / "python", folder / "shopassist"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.write_text("#!/bin/sh\necho shopassist $1\n")
    for path in (python, script):
        path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setattr(sys, "executable", str(python))
    if installation == "on PATH":
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    if installation == "without a script":
        script.unlink()
    command = find_command()
    assert (
        command
        == {
            "on PATH": "shopassist",
            "beside python": ".venv/bin/shopassist",
            "folder with a space": "'a folder/bin/shopassist'",
            "without a script": f"{python} -m shopassist",
        }[installation]
    )
    shown = subprocess.run(["/bin/sh", "-c", f"{command} --version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("shopassist ")


def test_a_damaged_key_is_said_in_one_sentence(start: Start, tmp_path: Path, database_url: str) -> None:
    """Before anything is served."""
    file = tmp_path / "secret.key"
    file.touch()
    environment = {"STORAGE": "postgres", "DATABASE_URL": database_url, "SHOPASSIST_DATA": str(tmp_path)}
    process = start(API_PORT="0", SAMPLE_CATALOGUE="false", **environment)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, b"")
    assert re.fullmatch(rf"shopassist: {file} holds no key [^\n]*\n", errors.decode())


UNNAMED = (
    "setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
)


@pytest.mark.external
def test_a_user_without_a_name_or_home_serves(database_url: str) -> None:
    """As containers are run, with DATABASE_URL; if that names no user either, the error says so."""
    command = [*UNNAMED.split(), sys.executable, "-m", "shopassist", "serve"]
    environment = {name: value for name, value in os.environ.items() if name not in {"HOME", "USER", "LOGNAME"}}
    environment |= {"PYTHONPATH": str(PROJECT), "SECRET_KEY": "k" * 32, "SAMPLE_CATALOGUE": "false"}
    port = free_port()
    environment |= {"API_PORT": str(port), "DATABASE_URL": database_url}
    with subprocess.Popen(command, env=environment, cwd="/", stdout=subprocess.DEVNULL) as process:
        try:
            assert ask(port) == 200
        finally:
            process.terminate()
    assert process.returncode == 0
    without = {**environment, "DATABASE_URL": f"postgresql://{database_url.rpartition('@')[2]}"}
    refused = subprocess.run(command, env=without, cwd="/", capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert re.fullmatch(r"shopassist: [^\n]* names no user\.\n", refused.stderr)
