"""Runs commands of `shopassist` in other processes, which a fork server starts in milliseconds."""

import multiprocessing
import os
import sys
import traceback
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


def run_command(
    folder: Path, arguments: Sequence[object], environment: Mapping[str, str], stdin: str = os.devnull
) -> Outcome:
    """Run a command in `folder`, with no other environment; return its outcome. `stdin` may be a terminal."""
    return run_commands(folder, [arguments], environment, stdin)[0]


def run_commands(
    folder: Path, commands: Sequence[Sequence[object]], environment: Mapping[str, str], stdin: str = os.devnull
) -> list[Outcome]:
    """Run commands one after the other in one process; return their outcomes."""
    with TemporaryDirectory() as outputs:
        words = [[str(argument) for argument in arguments] for arguments in commands]
        process = FORKS.Process(target=_run, args=(str(folder), words, dict(environment), stdin, outputs))
        process.start()
        process.join(TIMEOUT_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        return [_read_outcome(Path(outputs), number) for number in range(len(commands))]


def _read_outcome(outputs: Path, number: int) -> Outcome:
    code, *texts = (outputs / f"{name} {number}" for name in ("code", "stdout", "stderr"))
    texts_read = [file.read_text() if file.exists() else "" for file in texts]
    return Outcome(int(code.read_text()) if code.exists() else None, *texts_read)


def _run(folder: str, commands: list[list[str]], environment: dict[str, str], stdin: str, outputs: str) -> None:
    os.environ.clear()
    os.environ.update({"PATH": os.defpath, "HOME": folder} | environment)
    os.chdir(folder)
    os.dup2(os.open(stdin, os.O_RDONLY | os.O_NOCTTY), 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open as long as the process runs
    for number, arguments in enumerate(commands):
        for descriptor, name in enumerate(("stdout", "stderr"), start=1):
            file = os.open(f"{outputs}/{name} {number}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, descriptor)
            os.close(file)
        sys.argv = ["shopassist", *arguments]
        code: object = 1
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        except Exception:  # noqa: BLE001 - as the interpreter does
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        Path(f"{outputs}/code {number}").write_text(str(code))
