"""`shopassist db tune`: prints what to set in PostgreSQL, and why; changes nothing."""

from rich.console import Console
from rich.table import Table

from shopassist.db.migrate import connected
from shopassist.errors import InvalidInputError, StartupError
from shopassist.ops.session_link import protected
from shopassist.ops.tuning import (
    Change,
    Machine,
    advice_for,
    amount,
    as_statements,
    changes,
    most_connections,
    size,
    this_machine,
)
from shopassist.settings import Settings

SMALLEST = 256 * 2**20


def machine_of(memory: str | None, cores: int | None, *, spinning: bool) -> Machine:
    """The machine that PostgreSQL runs on: this one unless told. Raises `InvalidInputError`."""
    here = this_machine()
    told = here.memory if memory is None else amount(memory)
    if not isinstance(told, float | int) or told < SMALLEST:
        raise InvalidInputError(f"--memory must be a size such as 8GB, {size(SMALLEST)} at the least.")
    return Machine(int(told), cores or here.cores, not spinning)


async def tuned(settings: Settings, machine: Machine, *, as_sql: bool) -> list[Change]:
    """Print what to change; nothing is changed. Raises `StartupError`."""
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    async with connected(protected(settings, settings.database.database_url)) as connection:
        found = await changes(connection, advice_for(machine, most_connections(settings)))
    console = Console(highlight=False, markup=False, soft_wrap=as_sql)
    if as_sql:
        console.print(as_statements(found))
        return found
    console.print(f"For {size(machine.memory)} of memory and {machine.cores} cores that PostgreSQL has to itself:")
    table = Table("setting", "now", "better", "because", box=None, pad_edge=False)
    for change in found:
        restart = " (takes a restart)" if change.restart else ""
        table.add_row(change.advice.name, change.current, change.advice.value, change.advice.reason + restart)
    console.print(table if found else "Nothing is left to change.")
    return found
