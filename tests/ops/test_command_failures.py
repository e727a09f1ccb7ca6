"""Every command under every known failure: one sentence, exit code 1, no traceback.

The commands are those of the application. A new command needs its arguments in `ARGUMENTS`, and its name in each
condition that does not matter to it.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from shopassist.audit.storages import get_operator_name
from tests.support.commands import Outcome, run_command, run_commands, walk_commands
from tests.support.helpers import execute, get_port, replace_database_name

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "serve": (),
    "token": ("--sub", "someone"),
    "doctor": (),
    "db upgrade": (),
    "db downgrade": ("-1", "--yes"),
    "db current": (),
    "db history": (),
    "db provision": (),
    "credits show": ("someone",),
    "credits verify": (),
    "catalog import": ("{catalogue}",),
    "cache clear": (),
    "backup create": (),
    "backup list": (),
    "backup verify": (),
    "backup restore": ("newest", "--yes"),
    "user export": ("someone", "--to", "{output}"),
    "user erase": ("someone", "--yes"),
    "user erasures export": ("{output}",),
    "user erasures replay": ("{erasures}",),
    "rollout status": (),
    "rollout set": ("5",),
    "rollout back": (),
    "state export": ("{output}",),
    "state import": ("{state}",),
    "state verify": ("{state}",),
    "maintenance status": (),
    "maintenance run": (),
    "consent publish": ("terms", "{notice}", "--locale", "en"),
    "consent notices": (),
}
OFFLINE = {"token", "db history", "backup list"}
"""Commands that need no database."""
READ_ONLY = Path("/sys")
"""A folder where not even root may create a file."""
REPORTS = {"doctor", "maintenance status"}
"""Commands that print a report of problems and exit with 1."""
PROGRESS = re.compile(r" *\d+\.\d s  ")


@dataclass(frozen=True, slots=True)
class Shop:
    """A database with the schema, an empty one, and good files for every command."""

    url: str
    empty_url: str
    folder: Path
    files: Mapping[str, Path]

    def run(self, name: str, environment: Mapping[str, str], **files: Path) -> Outcome:
        """Run a command with its arguments; `files` replace good ones."""
        return run_command(self.folder, self.build(name, **files), self.complete(environment))

    def run_all(self, names: Iterable[str], environment: Mapping[str, str]) -> dict[str, Outcome]:
        """Run commands with their arguments; return their outcomes by name."""
        commands = {name: self.build(name) for name in names}
        outcomes = run_commands(self.folder, list(commands.values()), self.complete(environment))
        return dict(zip(commands, outcomes, strict=True))

    def build(self, name: str, **files: Path) -> list[str]:
        """Return a command with its arguments."""
        output = self.folder / f"output of {name}"
        return [*name.split(), *(part.format(**{**self.files, "output": output, **files}) for part in ARGUMENTS[name])]

    def complete(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment with what every command has in a good one."""
        url = environment.get("DATABASE_URL", self.url)
        defaults = {
            "SHOPASSIST_DATA": str(self.folder / "data"),
            "BACKUP_FOLDER": str(self.folder / "backups"),
            "SECRET_KEY": "k" * 32,
            "DATABASE_URL": url,
            "DATABASE_ADMIN_URL": url,
            "API_PORT": "0",
        }
        return {name: value for name, value in {**defaults, **environment}.items() if value}


@pytest.fixture(scope="module")
def shop(server_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Create databases, roles and files; the shop has one account."""
    folder = tmp_path_factory.mktemp("shop")
    url, empty_url = (replace_database_name(server_url, name) for name in ("commands", "commands_empty"))
    template = template_url.rpartition("/")[2]

    async def create() -> None:
        await execute(server_url, f"CREATE DATABASE commands TEMPLATE {template}")
        await execute(server_url, "CREATE DATABASE commands_empty")
        await execute(server_url, "CREATE ROLE commands_stranger LOGIN PASSWORD 'word'")
        await execute(server_url, "CREATE ROLE commands_reader LOGIN PASSWORD 'word' IN ROLE pg_read_all_data")
        await execute(server_url, "CREATE DATABASE commands_private")
        await execute(server_url, "REVOKE CONNECT ON DATABASE commands_private FROM PUBLIC")
        await execute(server_url, "CREATE ROLE commands_shut_out LOGIN PASSWORD 'word'")
        await execute(server_url, "CREATE ROLE commands_crowded LOGIN PASSWORD 'word' CONNECTION LIMIT 0")
        await execute(server_url, "CREATE ROLE commands_nobody NOLOGIN PASSWORD 'word'")
        await execute(server_url, "CREATE ROLE commands_standby LOGIN SUPERUSER PASSWORD 'word'")
        await execute(server_url, "ALTER ROLE commands_standby SET default_transaction_read_only = on")
        await execute(
            url,
            "INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp) "
            "VALUES ('someone', true, 10, 10, now());"
            "INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after) "
            "VALUES ('someone', 'allocate', 10, 10)",
        )

    asyncio.run(create())
    contents = {
        "catalogue": ("products.csv", "id,title,price,currency\n1,Phone,100,INR\n"),
        "notice": ("terms.txt", "Be good."),
        "erasures": ("erasures.jsonl", ""),
    }
    for name, content in contents.values():
        (folder / name).write_text(content)
    (folder / "damaged").write_bytes(b"\xff\xfe\x00\x81\n")
    files = {kind: folder / name for kind, (name, _) in contents.items()}
    files |= {kind: folder / kind for kind in ("state", "damaged")}
    shop = Shop(url, empty_url, folder, files)
    for command in (["state", "export", files["state"]], ["backup", "create"]):
        made = run_command(folder, command, shop.complete({}))
        assert made.code == 0, made.stderr
    return shop


def is_sentence(outcome: Outcome, says: str = "") -> bool:
    """Return whether the exit code is 1 and there is one sentence, perhaps after lines of progress."""
    lines = [line for line in outcome.stderr.splitlines() if not PROGRESS.match(line)]
    is_one = outcome.code == len(lines) == 1 and re.fullmatch(r"shopassist: .*[.?]", lines[0]) is not None
    return is_one and says in lines[0]


def require_sentence(outcome: Outcome, says: str = "") -> None:
    """Require that `is_sentence`."""
    assert is_sentence(outcome, says), outcome


def test_every_command_is_in_the_matrix() -> None:
    """The table of arguments has the commands of the application."""
    assert [name for name, _ in walk_commands()] == sorted(ARGUMENTS, key=list(dict(walk_commands())).index)


@dataclass(frozen=True, slots=True)
class Condition:
    """An environment in which commands fail, those that do not, and those that are left out."""

    environment: Callable[[Shop], dict[str, str]]
    unaffected: set[str] = field(default_factory=lambda: OFFLINE)
    left_out: set[str] = field(default_factory=set)


def log_in_as(user: str, password: str = "word") -> Callable[[Shop], dict[str, str]]:  # noqa: S107
    """Return an environment that logs in as `user`."""
    return lambda shop: {"DATABASE_URL": f"postgresql://{user}:{password}@127.0.0.1:{get_port(shop.url)}/commands"}


READ_ONLY_COMMANDS = {
    "db upgrade",
    "db current",
    "credits show",
    "credits verify",
    "backup create",
    "maintenance status",
    "user erasures export",
    "user erasures replay",
    "state verify",
    "consent notices",
}
CONDITIONS = {
    "no schema": Condition(
        lambda shop: {"DATABASE_URL": shop.empty_url},
        OFFLINE | {"db current"},
        # They create the schema or what belongs to none, and so make the condition go away.
        {"serve", "db upgrade", "db provision", "catalog import", "backup verify", "backup restore"},
    ),
    "no rights": Condition(log_in_as("commands_stranger")),
    "only reading": Condition(log_in_as("commands_reader"), OFFLINE | READ_ONLY_COMMANDS),
    "wrong password": Condition(log_in_as("commands_reader", "wrong")),
    "no database": Condition(
        lambda shop: {"DATABASE_URL": replace_database_name(shop.url, "commands_absent")}, left_out={"backup verify"}
    ),
    "memory": Condition(
        lambda _: {"STORAGE": "memory", "DATABASE_URL": "", "DATABASE_ADMIN_URL": ""}, left_out={"serve"}
    ),
    "read-only data folder": Condition(
        lambda _: {"SHOPASSIST_DATA": str(READ_ONLY), "DATABASE_URL": "", "DATABASE_ADMIN_URL": ""},
        OFFLINE - {"token"},
    ),
    "damaged secret": Condition(
        lambda shop: {"SECRET_KEY": "", "SECRET_KEY_FILE": str(shop.files["damaged"])}, {"db history"}, {"db provision"}
    ),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_under_which_commands_fail(shop: Shop, condition: str) -> None:
    """Each command prints a sentence, but for those to which the condition does not matter, and reports of problems."""
    case = CONDITIONS[condition]
    outcomes = shop.run_all([name for name in ARGUMENTS if name not in case.left_out], case.environment(shop))
    good = {name for name, outcome in outcomes.items() if outcome.code == 0}
    reports = {name for name in REPORTS if outcomes[name].code == 1 and outcomes[name].stdout}
    sentences = {name for name, outcome in outcomes.items() if is_sentence(outcome)}
    assert good == case.unaffected, outcomes
    assert {name: outcome for name, outcome in outcomes.items() if name not in good | reports | sentences} == {}
    assert [name for name, outcome in outcomes.items() if "Traceback" in outcome.stderr] == []


DAMAGE = {"no text": b"\xff\xfe\x00\x81\n", "empty": b"", "cut off": b'[{"title": "Ph', "other": b'{"other": 1}\n'}
READERS: dict[str, tuple[str, set[str]]] = {
    "catalog import": ("catalogue", set()),
    "consent publish": ("notice", {"cut off", "other"}),  # every text can be published
    "user erasures replay": ("erasures", {"empty", "cut off"}),  # a line that was not finished is left out
    "user erasures export": ("output", {"empty", "cut off"}),
    "state import": ("state", set()),
    "state verify": ("state", set()),
}
"""Commands that read a file, its kind, and the damage that is none."""


def test_a_damaged_file(shop: Shop, tmp_path: Path) -> None:
    """The sentence names the file or what is wrong in it, and the file stays."""
    cells = [(name, damage) for name, (_, accepted) in READERS.items() for damage in DAMAGE if damage not in accepted]
    files = {cell: tmp_path / f"{number}.csv" for number, cell in enumerate(cells)}
    for (_, damage), file in files.items():
        file.write_bytes(DAMAGE[damage])
    commands = [shop.build(name, **{READERS[name][0]: file}) for (name, _), file in files.items()]
    outcomes = dict(zip(cells, run_commands(shop.folder, commands, shop.complete({})), strict=True))
    assert {cell: outcome for cell, outcome in outcomes.items() if not is_sentence(outcome)} == {}
    assert [file.read_bytes() for file in files.values()] == [DAMAGE[damage] for _, damage in cells]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ending", ["json", "dump"])
def test_a_damaged_backup(shop: Shop, tmp_path: Path, damage: str, ending: str) -> None:
    """The sentence names the backup; the list shows its state."""
    for file in (shop.folder / "backups").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damaged = max(tmp_path.glob(f"*.{ending}"))
    damaged.write_bytes(DAMAGE[damage])
    outcomes = shop.run_all(("backup list", "backup verify", "backup restore"), {"BACKUP_FOLDER": str(tmp_path)})
    listed = outcomes.pop("backup list")
    assert listed.code == 0
    state = "damaged" if ending == "json" else "cut off"
    assert re.search(rf"^{damaged.stem} .*{state} *$", listed.stdout, re.MULTILINE)
    for outcome in outcomes.values():
        require_sentence(outcome, damaged.stem)


@pytest.mark.parametrize("name", ["postgresql/PG_VERSION", "postgresql/postmaster.pid"])
def test_a_damaged_data_folder(shop: Shop, name: str) -> None:
    """The sentence names the file of the embedded server."""
    with TemporaryDirectory() as folder:
        cluster = Path(folder) / "postgresql"
        cluster.mkdir()
        (cluster.parent / name).write_bytes(DAMAGE["no text"])
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            cluster.parent.chmod(0o711)
            shutil.chown(cluster, "nobody")
        require_sentence(shop.run("credits show", {"DATABASE_URL": "", "SHOPASSIST_DATA": folder}), name)


@pytest.mark.parametrize("folder", [READ_ONLY, Path(__file__), Path("/absent/folder")])
def test_a_folder_that_cannot_be_written(shop: Shop, folder: Path) -> None:
    """The sentence names the file that cannot be written."""
    names = ("user export", "user erasures export", "state export")
    commands = [shop.build(name, output=folder / "output") for name in names]
    for outcome in run_commands(shop.folder, commands, shop.complete({})):
        require_sentence(outcome, str(folder))


@pytest.mark.parametrize(
    ("name", "variable"),
    [("backup create", "BACKUP_FOLDER"), ("user erase", "SHOPASSIST_DATA"), ("token", "SHOPASSIST_DATA")],
)
def test_a_folder_of_the_settings_that_cannot_be_written(shop: Shop, name: str, variable: str) -> None:
    """The sentence names the folder."""
    require_sentence(shop.run(name, {variable: str(READ_ONLY), "SECRET_KEY": ""}), str(READ_ONLY))


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"DATABASE_URL": "postgresql://user:word@127.0.0.1:1/shop"}, "check DATABASE_URL"),
        ({"DB_SSL_MODE": "require"}, "does not speak TLS"),
        ({"DB_SSL_ROOT_CERT": "{damaged}", "DB_SSL_MODE": "verify-full"}, "DB_SSL_ROOT_CERT"),
        ({"DB_POOL_SIZE": "many"}, "DB_POOL_SIZE"),
    ],
)
def test_a_setting_that_is_wrong(shop: Shop, environment: dict[str, str], says: str) -> None:
    """The sentence names the setting or what is wrong with it."""
    names = ("serve", "db current", "credits show", "backup create", "catalog import")
    settings = {key: text.format(**shop.files) for key, text in environment.items()}
    for outcome in shop.run_all(names, settings).values():
        require_sentence(outcome, says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("credits", "show", "\udcff"), "user_id"),
        (("user", "erase", "\udcff", "--yes"), "user_id"),
        (("catalog", "import", "{catalogue}", "--source", "\udcff"), "--source"),
    ],
)
def test_an_argument_that_is_not_text(shop: Shop, arguments: tuple[str, ...], says: str) -> None:
    """Bytes that are not UTF-8 are refused by the name of the argument."""
    given = [part.format(**shop.files) for part in arguments]
    require_sentence(run_command(shop.folder, given, shop.complete({})), says)


@pytest.mark.parametrize(
    ("role", "says"),
    [
        ("commands_shut_out", "does not have CONNECT privilege|permission denied for database"),
        ("commands_crowded", "too many connections"),
        ("commands_nobody", "refuses the user or password"),
        ("commands_standby", "can only be read"),
    ],
)
def test_a_role_that_is_limited(shop: Shop, role: str, says: str) -> None:
    """The sentence says how the role is limited."""
    database = "commands_private" if role == "commands_shut_out" else "commands"
    url = f"postgresql://{role}:word@127.0.0.1:{get_port(shop.url)}/{database}"
    names = ("db downgrade", "user erase", "cache clear", "catalog import", "state export")
    for outcome in shop.run_all(names, {"DATABASE_URL": url}).values():
        require_sentence(outcome)
        assert re.search(f"{says}|read-only transaction", outcome.stderr)


async def test_a_table_that_is_locked(shop: Shop) -> None:
    """The sentence says that the database is busy."""
    connection = await asyncpg.connect(shop.url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE user_credits, query_cache")
        names = ("credits show", "user erase", "cache clear")
        outcomes = await asyncio.to_thread(shop.run_all, names, {"DB_LOCK_TIMEOUT": "0.1"})
    await connection.close()
    for outcome in outcomes.values():
        require_sentence(outcome, "too busy")


def test_an_operator_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as a number that no account has."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 3_999_999)
    assert get_operator_name() == "operator"


async def test_a_schema_of_another_version(database_url: str, shop: Shop) -> None:
    """A table that is missing, and one that may not be read, are named."""
    await execute(database_url, "DROP TABLE consent_notices CASCADE")
    outcome = await asyncio.to_thread(shop.run, "consent notices", {"DATABASE_URL": database_url})
    require_sentence(outcome, "shopassist db upgrade")
    assert "consent_notices" in outcome.stderr


def test_an_output_that_is_full(shop: Shop) -> None:
    """A full disk behind standard output is named, and nothing is printed at exit."""
    command = [sys.executable, "-m", "shopassist", "db", "history"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command, env=os.environ | shop.complete({}), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    require_sentence(Outcome(ended.returncode, "", ended.stderr), "No space left on device")


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (("token", "--sub", "a"), {"ENVIRONMENT": "production"}, "ENVIRONMENT=production"),
        (("token", "--sub", ""), {}, "--sub is empty"),
        (("token", "--sub", "  "), {}, "--sub is empty"),
        (("db", "upgrade", "nonsense"), {}, "There is no revision 'nonsense': see `shopassist db history`."),
        (("db", "upgrade", "9999"), {}, "There is no revision '9999': see `shopassist db history`."),
        (("db", "downgrade", "nonsense", "--yes"), {}, "There is no revision 'nonsense': see `shopassist db history`."),
    ],
)
def test_arguments_that_lead_nowhere(
    shop: Shop, words: tuple[str, ...], environment: dict[str, str], says: str
) -> None:
    """They are refused, and nothing is printed on standard output."""
    outcome = run_command(shop.folder, words, shop.complete(environment))
    require_sentence(outcome, says)
    assert outcome.stdout == ""


def test_help_is_for_those_who_run_it(shop: Shop) -> None:
    """It begins with what the program does and which commands come first."""
    shown = " ".join(run_command(shop.folder, ["--help"], shop.complete({})).stdout.split())
    assert (
        "Run and look after shopassist, an API that answers shopping questions. `shopassist serve` starts it" in shown
    )
    assert "joins the commands" not in shown
