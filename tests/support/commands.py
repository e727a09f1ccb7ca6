"""Runs commands of `shopassist` in processes of their own, which a fork server starts in milliseconds."""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from shopassist.__main__ import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["shopassist.cli", "containers", "alembic.command", "tests.support.commands"])
TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it wrote."""

    code: int | None
    stdout: str
    stderr: str


def run_command(folder: Path, arguments: list[str], environment: Mapping[str, str]) -> Outcome:
    """Run a command in `folder`, without a terminal and with no other environment; return its outcome."""
    with TemporaryDirectory() as outputs:
        files = [os.path.join(outputs, name) for name in ("stdout", "stderr")]  # noqa: PTH118 - pickled
        process = FORKS.Process(target=_run, args=(str(folder), arguments, dict(environment), files))
        process.start()
        process.join(TIMEOUT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        written = [Path(file).read_text() if Path(file).exists() else "" for file in files]
    return Outcome(process.exitcode, *written)


def _run(folder: str, arguments: list[str], environment: dict[str, str], files: list[str]) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update({"PATH": os.defpath, "HOME": folder} | environment)
    os.chdir(folder)
    sys.argv = ["shopassist", *arguments]
    main()
