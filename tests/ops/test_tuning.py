"""Advice on PostgreSQL's settings: what a machine gets, and that a real server takes it."""

import asyncpg
import pytest

from shopassist.errors import InvalidInputError
from shopassist.ops.tuning import (
    GB,
    Machine,
    build_advice,
    count_connections,
    find_changes,
    format_statements,
    parse_machine,
    print_advice,
)
from tests.support.databases import own_postgres
from tests.support.helpers import postgres_settings

SMALL, LARGE = Machine(GB, 1), Machine(256 * GB, 64)


async def test_what_is_more_than_enough_is_left_alone(database_url: str) -> None:
    """A server that bears more connections than are needed is not told to bear fewer."""
    connection = await asyncpg.connect(database_url)
    few, many = [
        {c.advice.name for c in await find_changes(connection, build_advice(SMALL, number))} for number in (50, 5000)
    ]
    await connection.close()
    assert "max_connections" in many - few


def advised(machine: Machine, connections: int = 100) -> dict[str, str]:
    """The advice by its setting."""
    return {advice.name: advice.value for advice in build_advice(machine, connections)}


def test_advice_follows_the_machine() -> None:
    """More memory, more buffers, up to where they stop to help; a disk that seeks is asked for less at once."""
    assert advised(SMALL)["shared_buffers"] == "256MB"
    assert advised(LARGE)["shared_buffers"] == "16384MB"
    assert advised(SMALL)["work_mem"] == "4MB"
    assert advised(LARGE)["work_mem"] == "64MB"
    assert advised(Machine(GB, 1, solid_state=False))["random_page_cost"] == "4"


@pytest.mark.parametrize("machine", [SMALL, LARGE])
def test_durability_is_never_advised_away(machine: Machine) -> None:
    """Whatever the machine."""
    assert [advised(machine)[name] for name in ("fsync", "full_page_writes", "synchronous_commit")] == ["on"] * 3


@pytest.mark.parametrize("memory", ["8", "much", "1MB", "-1GB"])
def test_a_size_that_is_none_is_refused(memory: str) -> None:
    """The option is named."""
    with pytest.raises(InvalidInputError, match="--memory"):
        parse_machine(memory, None, spinning=False)


async def test_a_server_takes_the_advice(capsys: pytest.CaptureFixture[str]) -> None:
    """After its statements and a restart nothing is left to change, and nothing is said twice."""
    machine = Machine(2 * GB, 2)
    with own_postgres() as server:
        settings = postgres_settings(server.url)
        connection = await asyncpg.connect(server.url)
        found = await find_changes(connection, build_advice(machine, count_connections(settings)))
        assert {change.advice.name for change in found} >= {"shared_buffers", "wal_compression", "random_page_cost"}
        for statement in format_statements(found).splitlines():
            if not statement.startswith("--"):
                await connection.execute(statement)
        await connection.close()
        server.stop()
        server.start()
        left = {change.advice.name for change in await print_advice(settings, machine, as_sql=False)}
    assert left <= {"fsync", "shared_buffers", "max_connections"}, "what a server of tests is started with stays"
    assert "because" in capsys.readouterr().out
