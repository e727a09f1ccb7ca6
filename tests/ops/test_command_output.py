"""What commands print: whole tables, JSON, questions before a loss; and the commands about credits and answers."""

import asyncio
import json
import os
import pty
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from containers import Container
from shopassist.credits.models import CreditAdjustment
from shopassist.db.migrate import list_known_revisions
from tests.support.commands import Outcome, run_command, walk_commands
from tests.support.helpers import postgres_settings
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.servers import TestServer

USER = "auth0|shopper"
REASON = "the parcel of the week before last was lost by the carrier, twice " * 3 + "\x1b[31m"
NO_TABLE = {"serve", "token", "user export", "user erase", "user erasures export", "user erasures replay"}
NEWEST = list_known_revisions()[-1]
TEXT_ONLY = NO_TABLE | {
    "db upgrade",
    "db downgrade",
    "db current",
    "db provision",
    "cache clear",
    "backup create",
    "backup verify",
    "backup restore",
    "maintenance run",
    "consent publish",
}
"""Commands that print a line or a document of their own."""


class Terminal:
    """Runs commands on a database with an account that was used."""

    def __init__(self, folder: Path, url: str) -> None:
        """Keep everything in `folder`."""
        self.folder = folder
        self.environment = {
            "DATABASE_URL": url,
            "SHOPASSIST_DATA": str(folder / "data"),
            "SECRET_KEY": "k" * 32,
        }

    async def run(self, *arguments: object, **environment: str) -> Outcome:
        """Run a command without a terminal."""
        return await asyncio.to_thread(run_command, self.folder, arguments, self.environment | environment)

    async def read_json(self, *arguments: object, code: int = 0) -> Any:
        """Run a command with `--json`; return what it prints."""
        outcome = await self.run(*arguments, "--json")
        assert outcome.code == code, outcome
        return json.loads(outcome.stdout)

    def answer(self, answer: str, *arguments: str) -> Outcome:
        """Run a command in a terminal and answer its question."""
        ours, theirs = pty.openpty()
        try:
            os.write(ours, f"{answer}\n".encode())
            return run_command(self.folder, arguments, self.environment, os.ttyname(theirs))
        finally:
            os.close(ours)
            os.close(theirs)


@pytest.fixture
async def terminal(database_url: str, tmp_path: Path) -> Terminal:
    """Provide commands on a database with a user, whose last transaction has a long reason."""
    container = Container(settings=postgres_settings(database_url))
    await container.credit_service().deduct_credit(USER, amount=3)
    change = CreditAdjustment(amount=5, reason=REASON)
    await container.adjustment_service().adjust(USER, change, "admin", "key")
    await container.query_cache_service().cache_result("h" * 64, {"answer": 1})
    await container.shutdown()
    return Terminal(tmp_path, database_url)


async def fetch(terminal: Terminal, query: str) -> Any:
    """Return the value of a query."""
    connection = await asyncpg.connect(terminal.environment["DATABASE_URL"])
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def test_every_other_command_takes_json() -> None:
    """Every command that prints rows has `--json`."""
    with_json = {name for name, command in walk_commands() if any("--json" in option.opts for option in command.params)}
    assert with_json == {name for name, _ in walk_commands()} - TEXT_ONLY


async def test_json(terminal: Terminal) -> None:
    """The rows are printed with all their fields; the exit code is the same."""
    file = terminal.folder / "products.csv"
    file.write_text("id,title,price,currency\n1,Phone,100,INR\n2,,100,INR\n")
    imported = await terminal.read_json("catalog", "import", file)
    assert (imported["inserted"], imported["rejected"]) == (1, 1)
    assert imported["rejects"] == f"{file}.rejects.jsonl"
    notice = terminal.folder / "terms.txt"
    notice.write_text("Be good.")
    await terminal.run("consent", "publish", "terms", notice, "--locale", "en")
    assert [one["purpose"] for one in await terminal.read_json("consent", "notices")] == ["terms"]
    assert [one["revision"] for one in await terminal.read_json("db", "history")] == list_known_revisions()
    assert await terminal.read_json("credits", "verify") == {"accounts": 1, "drifts": []}
    jobs = (await terminal.read_json("maintenance", "status"))["jobs"]
    assert {(job["problem"], job["last_run"]) for job in jobs} == {(None, None)}
    findings = await terminal.read_json("doctor", code=1)
    assert {finding["check"] for finding in findings} >= {"migrations", "ledger"}
    await terminal.run("backup", "create")
    [manifest] = await terminal.read_json("backup", "list")
    assert manifest["contents"]["ledger_sum"] == 52
    state = terminal.folder / "state.jsonl"
    assert (await terminal.read_json("state", "export", state))["user_credits"] == 1
    assert (await terminal.read_json("state", "import", state))["rejected"] == 0
    assert (await terminal.read_json("state", "verify", state))["is_equal"]


async def test_json_of_a_rollout(terminal: Terminal, provider: IdentityProvider) -> None:
    """The status is printed as the server gives it."""
    url = terminal.environment["DATABASE_URL"]
    believed = {"AUTH0_ISSUER": provider.issuer, "AUTH0_API_AUDIENCE": AUDIENCE}
    server = await asyncio.to_thread(TestServer(terminal.folder, url, STORAGE="rollout", **believed).wait_until_ready)
    terminal.environment |= {
        "SHOPASSIST_URL": f"http://127.0.0.1:{server.port}",
        "ADMIN_TOKEN": provider.token("auth0|admin", scope="shopassist:admin"),
    }
    try:
        assert (await terminal.read_json("rollout", "set", 100))["percent"] == 100
        assert not (await terminal.read_json("rollout", "status"))["is_back"]
        assert (await terminal.read_json("rollout", "back"))["is_back"]
        assert "everybody was sent back" in (await terminal.run("rollout", "status")).stdout
    finally:
        await asyncio.to_thread(server.stop)


async def test_tables_are_not_cut_in_a_pipe(terminal: Terminal) -> None:
    """Each row is one line, however long, also for a terminal of 80 columns elsewhere."""
    shown = await terminal.run("credits", "show", USER, COLUMNS="80")
    assert REASON[:-5] in shown.stdout
    assert len(shown.stdout.splitlines()) == 2 + 3
    findings = await terminal.read_json("doctor", code=1)
    lines = (await terminal.run("doctor", COLUMNS="80")).stdout.splitlines()
    assert len(lines) == 1 + len(findings) + 1
    assert all(finding["observation"] in line for finding, line in zip(findings, lines[1:-1], strict=True))


async def test_the_account_of_a_user(terminal: Terminal) -> None:
    """The balance and the history are shown, the newest first, and nothing is changed or obeyed by a terminal."""
    before = await fetch(terminal, "SELECT (SELECT count(*) FROM user_credits) + (SELECT count(*) FROM admin_audit)")
    shown = await terminal.run("credits", "show", USER)
    first, _, *rows = shown.stdout.splitlines()
    assert first.startswith(f"{USER}: 52 of 50 credits, 0 held, next reset ")
    assert [row.split()[4:6] for row in rows] == [["adjust", "+5"], ["deduct", "-3"], ["allocate", "+50"]]
    assert "\x1b" not in shown.stdout
    account = await terminal.read_json("credits", "show", USER, "--limit", 2)
    assert (account["user_id"], account["available_credits"], account["held_credits"]) == (USER, 52, 0)
    assert [row["amount"] for row in account["transactions"]] == [5, -3]
    assert account["transactions"][0]["balance_after"] == 52
    unknown = await terminal.run("credits", "show", "auth0|unknown")
    assert (unknown.code, unknown.stderr) == (1, "shopassist: There is no account of 'auth0|unknown'.\n")
    after = await fetch(terminal, "SELECT (SELECT count(*) FROM user_credits) + (SELECT count(*) FROM admin_audit)")
    assert after == before


LOSSES = [
    ("db downgrade -1", f"SELECT version_num < '{NEWEST}' FROM alembic_version", NEWEST),  # noqa: S608
    ("db downgrade base", "SELECT to_regclass('user_credits') IS NULL", "0001"),
    ("user erase " + USER, f"SELECT count(*) = 0 FROM user_credits WHERE user_id = '{USER}'", USER),  # noqa: S608
    (
        "backup restore newest",
        "SELECT count(*) = 1 FROM pg_database WHERE datname LIKE current_database() || '_before%'",
        "",
    ),
]


@pytest.mark.parametrize(("command", "is_lost", "names"), LOSSES)
async def test_a_loss_needs_a_yes(terminal: Terminal, command: str, is_lost: str, names: str) -> None:
    """The question says what will be lost. Without a terminal, or with another answer, nothing is."""
    await terminal.run("backup", "create")
    unasked = await terminal.run(*command.split())
    assert (unasked.code, "--yes" in unasked.stderr, names in unasked.stderr) == (1, True, True), unasked
    refused = await asyncio.to_thread(terminal.answer, "n", *command.split())
    assert (refused.code, names in refused.stderr, "Go on?" in refused.stderr) == (1, True, True), refused
    assert not await fetch(terminal, is_lost)
    done = await terminal.run(*command.split(), "--yes")
    assert done.code == 0, done
    assert await fetch(terminal, is_lost)


async def test_a_loss_is_confirmed_in_a_terminal(terminal: Terminal) -> None:
    """The answer y goes on."""
    done = await asyncio.to_thread(terminal.answer, "y", "user", "erase", USER)
    assert (done.code, "receipt_id" in done.stdout) == (0, True), done


@pytest.mark.parametrize("target", ["-99", "9999", "head-1"])
async def test_a_downgrade_to_nowhere(terminal: Terminal, target: str) -> None:
    """A revision that does not exist is refused before a question."""
    outcome = await terminal.run("db", "downgrade", target)
    assert (outcome.code, outcome.stderr.count("\n"), "--yes" in outcome.stderr) == (1, 1, False)


async def test_cleared_answers_are_gone_in_all_processes(database_url: str, tmp_path: Path) -> None:
    """A running server finds a stored answer no more, and drops what it keeps for outages."""
    server = TestServer(tmp_path, database_url).wait_until_ready()
    try:
        assert not (await asyncio.to_thread(server.ask, "phone", "guest"))[1]["cached"]
        assert (await asyncio.to_thread(server.ask, "phone", "guest"))[1]["cached"]
        cleared = await Terminal(tmp_path, database_url).run("cache", "clear")
        assert (cleared.code, cleared.stdout) == (0, "1 answers deleted\n"), cleared
        async with asyncio.timeout(10):
            while (await read_kept_answers(server)) > 0:
                await asyncio.sleep(0.1)
        assert not (await asyncio.to_thread(server.ask, "phone", "guest"))[1]["cached"]
    finally:
        server.stop()


async def read_kept_answers(server: TestServer) -> int:
    """Return how many answers a server keeps for outages."""
    _, health, _ = await asyncio.to_thread(server.call, "GET", "/health/detailed")
    return int(health["components"]["stale_answers"]["answers"])


@pytest.mark.parametrize("storage", ["memory", "rollout"])
async def test_commands_that_would_change_only_their_own_memory(terminal: Terminal, storage: str) -> None:
    """Where the answers and products are in a server's memory, a command refuses."""
    file = terminal.folder / "products.csv"
    file.write_text("id,title,price,currency\n1,Phone,100,INR\n")
    cleared = await terminal.run("cache", "clear", STORAGE=storage)
    assert (cleared.code, f"STORAGE={storage}" in cleared.stderr) == (1, True)
    if storage == "memory":
        imported = await terminal.run("catalog", "import", file, STORAGE=storage)
        assert (imported.code, imported.stderr.count("\n"), "STORAGE=memory" in imported.stderr) == (1, 1, True)
