"""`make bench-import`: import a million users and five million transactions with the commands of an operator.

`--quick` imports 20,000 users. `--kill` ends the first import half-way, by SIGKILL, and starts it again.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from rich.console import Console

from benchmarks.database import run_postgres
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.ops.snapshot.file import CHUNK_BYTES

USERS, QUICK_USERS = 1_000_000, 20_000
TRANSACTIONS_A_USER = 5
BUILD = Path("build")
FIRST_DAY = "2026-01-01T08:00:00+00:00"
DAYS = [f"2026-01-{day:02}T09:30:00.125+00:00" for day in range(2, 2 + TRANSACTIONS_A_USER)]
ANSWERS_EVERY = 100
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Target:
    """A database and the folder of its keys."""

    url: str
    folder: Path

    def shopassist(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the command as an operator would, in its own session."""
        variables = {**os.environ, "DATABASE_URL": self.url, "SHOPASSIST_DATA": str(self.folder)}
        command = [sys.executable, "-m", "shopassist", *arguments]
        return subprocess.Popen(command, env=variables, start_new_session=True)


def get_user_id(number: int) -> str:
    """Return the id of a user."""
    return f"auth0|{hashlib.sha256(str(number).encode()).hexdigest()[:24]}"


def generate_lines(first: int, users: int) -> Iterator[str]:
    """Yield the rows of this many users: an account, its ledger, every second a consent, every hundredth an answer."""
    for number in range(first, first + users):
        user = get_user_id(number)
        yield (
            f'{{"kind":"user_credits","user_id":"{user}","is_guest":false,"available_credits":46,"max_credits":50,'
            f'"last_reset_timestamp":"{FIRST_DAY}","created_at":"{FIRST_DAY}"}}'
        )
        balance = 0
        for day, at in enumerate(DAYS):
            type_, amount, words = ("allocate", 50, "Initial credits") if day == 0 else ("deduct", -1, "Message")
            balance += amount
            yield (
                f'{{"kind":"credit_transactions","user_id":"{user}","transaction_type":"{type_}","amount":{amount},'
                f'"timestamp":"{at}","description":"{words}","balance_after":{balance}}}'
            )
        if number % 2 == 0:
            yield f'{{"kind":"user_consents","user_id":"{user}","terms_accepted":true,"timestamp":"{FIRST_DAY}"}}'
        if number % ANSWERS_EVERY == 0:
            yield (
                f'{{"kind":"query_cache","query_hash":"{hashlib.sha256(user.encode()).hexdigest()}","result":'
                f'{{"products":[]}},"cached_at":"{FIRST_DAY}","expires_at":"{DAYS[0]}"}}'
            )


def write_snapshot(path: Path, first: int, users: int) -> int:
    """Write a reproducible snapshot and return the number of rows."""
    digest, rows = hashlib.sha256(), 0
    with path.open("wb", CHUNK_BYTES) as file:
        block = ['{"shopassist_state": 1}\n']
        for line in generate_lines(first, users):
            block.append(line + "\n")
            rows += 1
            if len(block) == 10_000:
                digest.update(data := "".join(block).encode())
                file.write(data)
                block.clear()
        digest.update(data := "".join(block).encode())
        file.write(data)
        end = {"end": {"rows": {"all": rows}, "sha256": digest.hexdigest()}}
        file.write(json.dumps(end).encode() + b"\n")
    return rows


def time_command(target: Target, *arguments: str) -> float:
    """Return the seconds that a successful command takes."""
    began = time.monotonic()
    if target.shopassist(*arguments).wait():
        raise SystemExit(f"{' '.join(arguments)} failed")
    return time.monotonic() - began


def kill_import(target: Target, path: Path, after: float) -> None:
    """Start an import and end it by SIGKILL."""
    process = target.shopassist("state", "import", str(path))
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


async def _create_database(server: str, name: str) -> str:
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = f"{server.rpartition('/')[0]}/{name}"
    await migrate.upgrade(normalise_dsn(url))
    return url


def main(arguments: list[str]) -> None:
    """Write the files, import, verify, and import again into filled tables."""
    users = QUICK_USERS if "--quick" in arguments else USERS
    BUILD.mkdir(exist_ok=True)
    all_of_them, more = BUILD / f"state-{users}.jsonl", BUILD / f"state-{users // 10}-more.jsonl"
    rows, more_rows = write_snapshot(all_of_them, 0, users), write_snapshot(more, users, users // 10)
    with run_postgres() as (server, folder):
        target = Target(asyncio.run(_create_database(server, "moved_in")), folder)
        if "--kill" in arguments:
            after = users / USERS * 45 + 2
            kill_import(target, all_of_them, after)
            console.print(f"killed after {after:.0f} s")
        took = time_command(target, "state", "import", str(all_of_them))
        console.print(f"into empty tables: {users:,} users, {rows:,} rows in {took:.0f} s, {rows / took:,.0f} rows/s")
        console.print(f"verify: {time_command(target, 'state', 'verify', str(all_of_them)):.0f} s")
        took = time_command(target, "state", "import", str(more))
        console.print(f"into filled tables: {more_rows:,} rows in {took:.0f} s, {more_rows / took:,.0f} rows/s")
        console.print(f"credits verify: {time_command(target, 'credits', 'verify'):.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
