"""Code, documentation and help texts are plain English: indirect and archaic words stay under a limit."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from shopassist.cli import app

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = (".ci", "benchmarks", "docs", "migrations", "shopassist", "tests")
INDIRECT_WORDS = (
    *("nobody", "somebody", "whoever", "whom", "whose", "wherever", "whichever", "lest"),
    *("in vain", "be it", "of which", "of whom", "at the most", "at the least"),
)
MAX_PER_100_000_LINES = 60
PATTERN = re.compile(r"\b(" + "|".join(INDIRECT_WORDS).replace(" ", r"\s+") + r")\b", re.IGNORECASE)


def list_files() -> list[Path]:
    """Return every Python and Markdown file of the project but this one, which has to name the words."""
    files = [path for pattern in ("*.py", "*.md") for path in PROJECT.glob(pattern)]
    files += [
        path
        for folder in FOLDERS
        for pattern in ("*.py", "*.md")
        for path in (PROJECT / folder).rglob(pattern)
        if "__pycache__" not in path.parts
    ]
    return [path for path in files if path != Path(__file__).resolve()]


def walk_help(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the help texts of a command, its options and its subcommands, each with the command's name."""
    yield name, command.help or ""
    for parameter in command.params:
        yield name, getattr(parameter, "help", None) or ""
    for child_name, child in getattr(command, "commands", {}).items():
        yield from walk_help(child, f"{name} {child_name}")


def test_indirect_words_are_rare() -> None:
    """At most 60 of them stand in 100,000 lines; the files with the most are named."""
    texts = {path.relative_to(PROJECT).as_posix(): path.read_text() for path in list_files()}
    lines = sum(text.count("\n") for text in texts.values())
    help_texts: dict[str, str] = {}
    for name, text in walk_help(typer.main.get_command(app), "shopassist"):
        help_texts[f"help of {name}"] = help_texts.get(f"help of {name}", "") + text + "\n"
    lines += sum(text.count("\n") for text in help_texts.values())
    counts = {name: len(PATTERN.findall(text)) for name, text in {**texts, **help_texts}.items()}
    worst = sorted(((count, name) for name, count in counts.items() if count), reverse=True)[:20]
    rate = sum(counts.values()) * 100_000 / lines
    assert rate <= MAX_PER_100_000_LINES, "\n".join(f"{count} {name}" for count, name in worst)


def test_the_pattern_matches_whole_words_only() -> None:
    """Capitals and line ends do not hide a word; longer words that contain one do not count."""
    assert PATTERN.findall("Nobody came in\nvain. Latest holdings, wholesome.") == ["Nobody", "in\nvain"]
