"""`shopassist db tune`: PostgreSQL settings that fit a machine, with the reasons."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.table import Table

from shopassist.db.direct_pool import DIRECT_CONNECTIONS
from shopassist.db.dsn import build_dsn
from shopassist.db.migrate import connect
from shopassist.errors import InvalidInputError, StartupError
from shopassist.settings import Settings

MB = 2**20
GB = 2**30
RESERVED_CONNECTIONS = 20
"""For migrations, backups, people and what PostgreSQL keeps for itself."""

CURRENT_SETTINGS = """
SELECT name, current_setting(name) AS value, context = 'postmaster' AS restart, enumvals AS choices FROM pg_settings
"""
FALLBACK_COMPRESSION = "pglz"
"""For a server that was built without the compression that is advised: PostgreSQL's own."""

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where PostgreSQL runs: bytes of memory that it may have, cores, and whether its disk seeks quickly."""

    memory: int
    cores: int
    solid_state: bool = True


@dataclass(frozen=True, slots=True)
class Advice:
    """What a setting should be, or be at least, and why."""

    name: str
    value: str
    reason: str
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Advice beside what the server has now; `restart` says that a reload is not enough."""

    advice: Advice
    current: str
    restart: bool


def detect_machine() -> Machine:
    """The machine that this runs on, or what its container may have of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # there is no limit
        memory = min(memory, int(CGROUP_LIMIT.read_text(encoding="ascii")))
    return Machine(memory, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def count_connections(settings: Settings) -> int:
    """Connections that the app's workers may open, and some for others."""
    database = settings.database
    each = database.pool_size + database.max_overflow + min(database.pool_size, DIRECT_CONNECTIONS)
    return settings.server.workers * each + RESERVED_CONNECTIONS


def build_advice(machine: Machine, connections: int) -> list[Advice]:
    """What fits `machine` where PostgreSQL has it to itself, and so many connections."""
    buffers = min(machine.memory // 4, 16 * GB)
    work = max(4 * MB, min((machine.memory - buffers) // (4 * connections), 64 * MB))
    return [
        Advice("shared_buffers", format_size(buffers), "a quarter of memory: accounts and hot answers stay there"),
        Advice(
            "effective_cache_size",
            format_size(3 * machine.memory // 4),
            "what PostgreSQL and the system cache together",
        ),
        Advice("work_mem", format_size(work), "each sort and hash may take it, in every connection at once"),
        Advice(
            "maintenance_work_mem",
            format_size(min(machine.memory // 16, 2 * GB)),
            "VACUUM and CREATE INDEX pass once over the ledger instead of many times",
        ),
        Advice(
            "max_connections",
            str(connections),
            "what the workers may open, and 20 for people and maintenance",
            at_least=True,
        ),
        Advice("wal_buffers", "16MB", "concurrent commits do not wait for room"),
        Advice("wal_compression", "lz4", "pages that are logged whole take a third of the room"),
        Advice("checkpoint_timeout", "15min", "fewer pages are logged whole; recovery after a crash takes longer"),
        Advice(
            "max_wal_size",
            format_size(max(2 * GB, min(machine.memory // 2, 16 * GB))),
            "checkpoints come by time",
            at_least=True,
        ),
        Advice("checkpoint_completion_target", "0.9", "a checkpoint's writes are spread and disturb nobody"),
        Advice("random_page_cost", "1.1" if machine.solid_state else "4", "what a seek costs on this disk"),
        Advice("effective_io_concurrency", "200" if machine.solid_state else "2", "reads that the disk takes at once"),
        Advice("jit", "off", "statements take less than compiling them"),
        Advice("autovacuum_vacuum_scale_factor", "0.05", "a ledger of millions is not left until a fifth is dead"),
        Advice("autovacuum_analyze_scale_factor", "0.02", "plans follow the data"),
        Advice("autovacuum_vacuum_cost_limit", "1000", "VACUUM keeps up with debits on a disk of today"),
        Advice("autovacuum_max_workers", str(max(2, min(machine.cores // 2, 5))), "one for every two cores"),
        Advice("idle_in_transaction_session_timeout", "60s", "a forgotten transaction does not stop VACUUM for ever"),
        Advice("fsync", "on", "never traded for speed"),
        Advice("full_page_writes", "on", "never traded for speed"),
        Advice("synchronous_commit", "on", "never traded for speed: what is acknowledged is on the disk"),
    ]


async def find_changes(connection: asyncpg.Connection, advice: list[Advice]) -> list[Change]:
    """The advice that the server does not follow yet; what its version does not have is left out."""
    current = {row["name"]: row for row in await connection.fetch(CURRENT_SETTINGS)}
    found = []
    for each in advice:
        row = current.get(each.name)
        if row is None:
            continue
        fitting = each if each.value in (row["choices"] or [each.value]) else replace(each, value=FALLBACK_COMPRESSION)
        if not _is_followed(row["value"], fitting):
            found.append(Change(fitting, row["value"], row["restart"]))
    return found


def _is_followed(current: str, advice: Advice) -> bool:
    now, better = parse_amount(current), parse_amount(advice.value)
    if advice.at_least and isinstance(now, float) and isinstance(better, float):
        return now >= better
    return now == better


def format_size(number: int) -> str:
    """Bytes as PostgreSQL writes them, in whole megabytes."""
    return f"{number // MB}MB"


UNITS = {"kB": 2**10, "MB": MB, "GB": GB, "s": 1, "min": 60, "h": 3600}


def parse_amount(text: str) -> float | str:
    """A value of a setting, comparable whatever its unit."""
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    try:
        return float(digits) * UNITS.get(text[len(digits) :], 1)
    except ValueError:
        return text


def format_statements(found: list[Change]) -> str:
    """`ALTER SYSTEM` for each change, with its reason, and how to make them take effect."""
    lines = []
    for change in found:
        note = "; takes a restart" if change.restart else ""
        lines += [f"-- {change.advice.reason} (now {change.current}{note})"]
        lines += [f"ALTER SYSTEM SET {change.advice.name} = '{change.advice.value}';"]
    return "\n".join([*lines, "SELECT pg_reload_conf();"])


MIN_MEMORY = 256 * 2**20


def parse_machine(memory: str | None, cores: int | None, *, spinning: bool) -> Machine:
    """The machine that PostgreSQL runs on: this one unless told. Raises `InvalidInputError`."""
    here = detect_machine()
    told = here.memory if memory is None else parse_amount(memory)
    if not isinstance(told, float | int) or told < MIN_MEMORY:
        raise InvalidInputError(f"--memory must be a size such as 8GB, {format_size(MIN_MEMORY)} at the least.")
    return Machine(int(told), cores or here.cores, not spinning)


async def print_advice(settings: Settings, machine: Machine, *, as_sql: bool) -> list[Change]:
    """Print what to change; nothing is changed. Raises `StartupError`."""
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    async with connect(build_dsn(settings, settings.database.database_url)) as connection:
        found = await find_changes(connection, build_advice(machine, count_connections(settings)))
    console = Console(highlight=False, markup=False, soft_wrap=as_sql)
    if as_sql:
        console.print(format_statements(found))
        return found
    console.print(
        f"For {format_size(machine.memory)} of memory and {machine.cores} cores that PostgreSQL has to itself:"
    )
    table = Table("setting", "now", "better", "because", box=None, pad_edge=False)
    for change in found:
        restart = " (takes a restart)" if change.restart else ""
        table.add_row(change.advice.name, change.current, change.advice.value, change.advice.reason + restart)
    console.print(table if found else "Nothing is left to change.")
    return found
