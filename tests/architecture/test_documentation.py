"""What the documentation names exists: files, modules, settings, commands and links."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from shopassist.cli import app
from tests.support.helpers import get_setting_names

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("migrations/**/*.md")])
FILE = re.compile(r"(?<![\w./-])((?:shopassist|tests|benchmarks|migrations|deploy|docs|requirements)/[\w./-]*\w)")
MODULE = re.compile(r"(?<![\w./'-])((?:shopassist|tests|benchmarks)(?:\.[A-Za-z_]\w*)+)(?![\w/])")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"`(?:\.venv/bin/)?shopassist ([a-z][a-z|-]*(?: [a-z|-]+)*)")
MAKE_TARGET = re.compile(r"`make ([a-z-]+)")
REMOVED_SECTION = re.compile(r"^### Removed$.*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    """Return the text of a document, without what the changelog lists as removed."""
    return REMOVED_SECTION.sub("", path.read_text())


def is_importable(name: str) -> bool:
    """Return whether a dotted name is a module or an attribute in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_files_and_modules_exist(path: Path) -> None:
    """A path is relative to the project, a link to its document, and a dotted name can be imported."""
    text = read(path)
    missing = {
        name for name in FILE.findall(text) if not (PROJECT / name).exists() and name != "shopassist/settings.py"
    }
    missing |= {name for name in MODULE.findall(text) if not is_importable(name)}
    missing |= {link for link in LINK.findall(text) if not (path.parent / link).exists()}
    assert missing == set()


def test_commands_exist() -> None:
    """Every `shopassist …` that a document shows is a command of the command line."""
    commands: Any = getattr(typer.main.get_command(app), "commands", {})
    shown = {tuple(words.split()[:2]) for path in DOCUMENTS for words in COMMAND.findall(read(path))}
    missing = set()
    for first, *rest in shown:
        for name in first.split("|"):
            children = getattr(commands.get(name), "commands", {})
            second = rest[0].split("|") if rest and children else []
            if name not in commands or not children.keys() >= set(second):
                missing.add(" ".join((first, *rest)))
    assert missing == set()


def test_make_targets_exist() -> None:
    """Every `make …` that a document shows is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    shown = {name for path in DOCUMENTS for name in MAKE_TARGET.findall(read(path))}
    assert shown - targets == set()


def test_readme_lists_every_setting() -> None:
    """The table in the README and the settings are the same list."""
    table = (PROJECT / "README.md").read_text().split("## Configuration")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert get_setting_names() == {name for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row)}
