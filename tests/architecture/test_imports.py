"""Rules about imports, the environment and module length that import-linter cannot check."""

import ast
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
MODULES = sorted(PROJECT.glob("shopassist/**/*.py"))
MAX_MODULE_LINES = 400


def list_imports(path: Path) -> set[str]:
    """Return the modules that a file imports, at any level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_only_the_entry_points_import_the_container() -> None:
    """Only the command line and the ASGI factory build containers."""
    importers = {path.name for path in MODULES if "containers" in list_imports(path)}
    assert importers == {"cli.py", "asgi.py"}


def test_only_the_settings_read_the_environment() -> None:
    """Values of the environment enter through `settings`; `asgi.py` only marks worker processes."""
    readers = {path.relative_to(PROJECT).as_posix() for path in MODULES if "os.environ" in path.read_text()}
    assert readers <= {"shopassist/asgi.py", "shopassist/settings/database.py"}


def test_modules_stay_short() -> None:
    """A module over the limit has two reasons to change: split it."""
    lengths = {path: len(path.read_text().splitlines()) for path in [*MODULES, PROJECT / "containers.py"]}
    assert {str(path): length for path, length in lengths.items() if length > MAX_MODULE_LINES} == {}
