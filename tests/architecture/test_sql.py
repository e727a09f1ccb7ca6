"""Statements are SQLAlchemy constructs or constant text with bound parameters: values are never put into SQL."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MODULES = sorted([*PROJECT.glob("shopassist/**/*.py"), *PROJECT.glob("migrations/**/*.py"), PROJECT / "containers.py"])
TAKES_SQL = {
    *("text", "literal_column", "exec_driver_sql", "op", "DDL"),
    *("execute", "executemany", "fetch", "fetchval", "fetchrow", "prepare", "cursor", "copy_from_query"),
}
QUOTED_NAMES_ALLOWED = {"shopassist/db/statements.py"}
"""SQL cannot bind names of roles and databases; only this module has PostgreSQL quote them."""


def is_constant_template(node: ast.AST) -> bool:
    """Return whether an expression fills a constant of the module with literals only, as `TEMPLATE.format(x="a")`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id.isupper()
        and all(isinstance(value, ast.Constant) for value in [*node.args, *(word.value for word in node.keywords)])
    )


def composed(node: ast.AST) -> bool:
    """Return whether an expression builds a string at run time."""
    if is_constant_template(node):
        return False
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"format", "join"}


def composed_names(tree: ast.AST) -> set[str]:
    """Return the names that a module gives to strings built at run time."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(node, ast.AugAssign) or composed(node.value):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def interpolations(source: str) -> Iterator[int]:
    """Yield the lines where a string built at run time is passed to a function that takes SQL."""
    tree = ast.parse(source)
    suspects = composed_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        statement = node.args[0]
        if name in TAKES_SQL and (
            composed(statement)
            or (isinstance(statement, ast.Name) and statement.id in suspects)
            or (
                isinstance(statement, ast.Call)
                and not is_constant_template(statement)
                and getattr(statement.func, "id", "") not in {*TAKES_SQL, "", *BUILDERS}
            )
        ):
            yield node.lineno


BUILDERS = {"select", "insert", "update", "delete"}
"""SQLAlchemy's constructs, which bind what they are given."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_nothing_is_put_into_sql(path: Path) -> None:
    """No f-string, format, join, + or % makes a statement, in place or under a name of the module."""
    if path.relative_to(PROJECT).as_posix() not in QUOTED_NAMES_ALLOWED:
        assert list(interpolations(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        'text(f"SELECT {x}")',
        'connection.execute("SELECT " + x)',
        'connection.fetch("SELECT %s" % x)',
        'op.execute("DROP TABLE {}".format(x))',
        "text(TEMPLATE.format(condition=x))",
        'S = f"SELECT {x}"\ntext(S)',
        'S = "SELECT 1"\nS += x\ntext(S)',
        'literal_column(", ".join(names))',
        "text(statement_of(x))",
    ],
)
def test_the_rule_finds_what_it_forbids(source: str) -> None:
    """Each usual way of putting a value into SQL is found."""
    assert list(interpolations(source))


@pytest.mark.parametrize(
    "source",
    [
        'text(TEMPLATE.format(condition="a = :a"))',
        'text("SELECT :x")',
        "connection.execute(FIND, {})",
        "session.execute(select(A))",
        'op.execute(f"DROP")',
    ],
)
def test_the_rule_lets_constants_pass(source: str) -> None:
    """Constant text, constants of the module and SQLAlchemy's constructs."""
    assert not list(interpolations(source))
