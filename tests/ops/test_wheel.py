"""A built wheel is complete: installed elsewhere, it starts, migrates and answers."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shopassist

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "containers.py", "shopassist", "migrations")
START_SECONDS = 60


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel without network from a copy of the sources, and install it into an empty folder."""
    folder = tmp_path_factory.mktemp("wheel")
    sources, target = folder / "sources", folder / "installation"
    sources.mkdir()
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, sources / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*wheel, str(sources)], check=True)
    [built] = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(built)], check=True)
    return target


@pytest.fixture
def environment(installation: Path, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user without a source checkout, with a data folder of the test's own."""
    kept = {name: value for name, value in os.environ.items() if name != "SHOPASSIST_DATA"}
    return {**kept, "PYTHONPATH": str(installation), "XDG_DATA_HOME": str(tmp_path / "data")}


@pytest.fixture
def address(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Run `shopassist serve` of the installation from another folder, and return its URL once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "shopassist", "serve"],
            env={**environment, "API_PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                request(f"http://127.0.0.1:{port}/health")
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            else:
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def request(url: str, body: Any = None) -> Any:
    """Send a GET request, or a POST request with a JSON body, and return the JSON of the response."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-Session-ID": "wheel", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as response:  # noqa: S310
        return json.load(response)


def test_an_installed_wheel_migrates_and_answers(address: str, environment: dict[str, str], tmp_path: Path) -> None:
    """The tables exist, the sample catalogue is loaded, and the data is in the user's data folder."""
    answer = request(f"{address}/api/query", {"query": "best 5G phone under ₹12,000 with 8GB RAM"})
    assert answer["products"]
    assert answer["metadata"]["charged"] == 1
    assert (tmp_path / "data" / "shopassist").is_dir()
    command = [sys.executable, "-m", "shopassist", "db", "current"]
    printed = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    newest = max(path.name for path in (PROJECT / "migrations/versions").glob("[0-9]*.py"))
    assert newest.split("_")[0] in printed


def test_the_version_is_printed(environment: dict[str, str], tmp_path: Path) -> None:
    """`--version` prints the version of the package and exits with 0."""
    command = [sys.executable, "-m", "shopassist", "--version"]
    printed = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert printed.strip().endswith(shopassist.__version__)


def test_licence_and_notice_are_in_the_wheel(installation: Path) -> None:
    """The licence requires that both are distributed."""
    names = {path.name for path in installation.glob("shopassist-*.dist-info/**/*") if path.is_file()}
    assert {"LICENSE", "NOTICE"} <= names
