"""Measure the code of one or more revisions: modules, lines, length of modules, and indirect words.

Run `python -m benchmarks.structure 1000185 HEAD`; it prints a Markdown table with a column for each revision.
"""

import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.architecture.test_language import PATTERN


def count_lines(paths: list[Path]) -> int:
    """Return the number of lines of all files."""
    return sum(path.read_text().count("\n") for path in paths)


def measure(root: Path) -> dict[str, str]:
    """Return the figures of a source tree, by name."""
    product = [*(root / "shopassist").rglob("*.py"), root / "containers.py"]
    tests = [*(root / "tests").rglob("*.py"), *(root / "benchmarks").rglob("*.py")]
    docs = [path for path in root.rglob("*.md") if ".venv" not in path.parts]
    composition = [root / "containers.py", *(root / "shopassist" / "wiring").rglob("*.py")]
    composition += [*(root / "shopassist" / "storage").rglob("*.py"), *(root / "shopassist").glob("storage.py")]
    lengths = [path.read_text().count("\n") for path in product]
    language = [*root.rglob("*.py"), *docs]
    words = sum(len(PATTERN.findall(path.read_text())) for path in language if path.name != "test_language.py")
    return {
        "modules of the product": f"{len(product):,}",
        "lines of the product": f"{sum(lengths):,}",
        "median module, lines": f"{statistics.median(lengths):g}",
        "longest module, lines": f"{max(lengths):,}",
        "lines of tests and benchmarks": f"{count_lines(tests):,}",
        "lines of documentation": f"{count_lines(docs):,}",
        "lines of composition (containers.py, storage containers)": f"{count_lines(composition):,}",
        "lines of containers.py": f"{count_lines([root / 'containers.py']):,}",
        "indirect words per 100,000 lines": f"{words * 100_000 / count_lines(language):,.0f}",
    }


def export(revision: str, folder: Path) -> Path:
    """Write the files of a revision into `folder`."""
    archive = folder / "source.tar"
    subprocess.run(["git", "archive", "--output", str(archive), revision], check=True)
    root = folder / "source"
    with tarfile.open(archive) as source:
        source.extractall(root, filter="data")
    return root


def main(revisions: list[str]) -> None:
    """Print the table."""
    columns = {}
    for revision in revisions:
        with tempfile.TemporaryDirectory() as folder:
            columns[revision] = measure(export(revision, Path(folder)))
    print("| | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} | " + " | ".join(figures[name] for figures in columns.values()) + " |")


if __name__ == "__main__":
    main(sys.argv[1:] or ["HEAD"])
