"""Runs commands of `shopassist` in processes of their own, which a fork server starts in milliseconds."""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from shopassist.__main__ import main
from shopassist.cli import app

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["containers", "alembic.command", "tests.support.commands"])
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it wrote."""

    code: int | None
    stdout: str
    stderr: str


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Yield the name of every command, such as `db upgrade`, and the command."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield name, command
            return
        for part, subcommand in command.commands.items():
            yield from walk(f"{name} {part}".lstrip(), subcommand)

    return walk("", typer.main.get_command(app))


def run_command(folder: Path, arguments: Sequence[object], environment: Mapping[str, str]) -> Outcome:
    """Run a command in `folder`, without a terminal and with no other environment; return its outcome."""
    with TemporaryDirectory() as outputs:
        files = [f"{outputs}/stdout", f"{outputs}/stderr"]
        words = [str(argument) for argument in arguments]
        process = FORKS.Process(target=_run, args=(str(folder), words, dict(environment), files))
        process.start()
        process.join(TIMEOUT_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        stdout, stderr = (Path(file).read_text() for file in files)
    return Outcome(process.exitcode, stdout, stderr)


def _run(folder: str, arguments: list[str], environment: dict[str, str], files: list[str]) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update({"PATH": os.defpath, "HOME": folder} | environment)
    os.chdir(folder)
    sys.argv = ["shopassist", *arguments]
    main()
