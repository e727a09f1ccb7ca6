"""The embedded PostgreSQL: real servers, real signals, real accounts."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from shopassist.db.embedded.programs import (
    Binaries,
    OsAccount,
    find_binaries,
    find_postmaster,
    make_runnable,
)
from shopassist.db.embedded.server import DataFolder, EmbeddedPostgres
from shopassist.errors import StartupError

PROJECT = Path(__file__).parents[2]
ROOT = os.geteuid() == 0
UNPRIVILEGED = OsAccount.of(pwd.getpwnam("nobody").pw_uid)

# Everything is imported before the rights are dropped: the interpreter itself may lie in root's home.
PROCESS = """
import os, sys
from pathlib import Path
from shopassist.db.embedded import programs
from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.errors import StartupError
folder, user, group, binaries, death_signal = sys.argv[1:]
if death_signal == "no":
    programs._prctl = None
if int(user) != os.geteuid():
    sys.path.append(binaries)
    os.setgroups([]); os.setgid(int(group)); os.setuid(int(user))
server = EmbeddedPostgres(Path(folder))
try:
    print(server.start(), flush=True)
except StartupError as error:
    sys.exit(error.detail)
sys.stdin.read()
server.stop()
"""

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
child.wait()
"""
CHILD = """
import os, signal, sys, time
from shopassist.db.embedded import programs
from shopassist.db.embedded.programs import die_with_parent
if sys.argv[1] == "no":
    programs._prctl = None
die_with_parent(signal.SIGTERM)
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create a folder that any account can pass."""
    made = Path(tempfile.mkdtemp(prefix="shopassist-test-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """Create a folder after a first start, to be copied."""
    made = Path(tempfile.mkdtemp(prefix="shopassist-test-"))
    made.chmod(0o711)
    embedded = EmbeddedPostgres(made)
    embedded.start()
    embedded.stop()
    yield made
    shutil.rmtree(made)


@pytest.fixture
def data(folder: Path, made_once: Path) -> Path:
    """Copy the folder after a first start."""
    subprocess.run(["cp", "-a", f"{made_once}/.", folder], check=True)
    return folder


@pytest.fixture
def server(data: Path) -> Iterator[EmbeddedPostgres]:
    """Start a server of this process."""
    embedded = EmbeddedPostgres(data)
    embedded.start()
    yield embedded
    embedded.stop()


@contextmanager
def another_process(
    folder: Path, account: OsAccount | None = None, *, death_signal: bool = True
) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts or joins the server, and stops when its standard input is closed."""
    runs_as = account or OsAccount.of(os.geteuid())
    libraries = make_runnable(runs_as, find_binaries()).folder.parents[2]
    arguments = (folder, runs_as.user, runs_as.group, libraries, "yes" if death_signal else "no")
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        start_new_session=True,
    ) as process:
        try:
            yield process
            process.communicate(timeout=20)
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that the process prints: its DSN."""
    assert process.stdout
    line = process.stdout.readline().strip()
    assert line, process.stderr and process.stderr.read()
    return line


def query(url: str, sql: str) -> Any:
    """Return the value of a statement."""

    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def postmaster_pid(folder: Path) -> int:
    """Return the process id of the running server."""
    found = find_postmaster(folder / "postgresql")
    assert found
    return found.pid


def are_gone(*pids: int) -> bool:
    """Return whether none of these processes runs; zombies do not count."""
    command = ["ps", "-o", "stat=", "-p", ",".join(map(str, pids))]
    states = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
    return all(state.startswith("Z") for state in states)


def family(pid: int) -> list[int]:
    """Return the process ids of a server and its children."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], check=True, capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    return [pid, *(child for child, parent in pairs if parent == pid)]


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition holds before the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def is_up_again(url: str, previous: int, folder: Path) -> bool:
    """Return whether a new server answers at the same address."""
    found = find_postmaster(folder / "postgresql")
    return bool(found and found.ready and found.pid != previous and query(url, "SELECT 1") == 1)


def test_first_start_makes_a_durable_database(server: EmbeddedPostgres) -> None:
    """The first start creates a UTF-8 database with durable commits, in UTC, reachable from this machine only."""
    names = ("fsync", "synchronous_commit", "full_page_writes", "timezone", "server_encoding", "listen_addresses")
    values = [query(server.url, f"SHOW {name}") for name in names]
    assert values == ["on", "on", "on", "UTC", "UTF8", "127.0.0.1"]
    assert query(server.url, "SELECT lower('ÄÖ')") == "äö"
    wrong = server.url.replace("shopassist:", "shopassist:x", 1)
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(wrong, "SELECT 1")


def test_a_later_start_is_quick_and_keeps_data_and_address(folder: Path) -> None:
    """Stopped and started again, the server has its data at the same address in under two seconds."""
    first = EmbeddedPostgres(folder, settings={"work_mem": "8MB"})
    url = first.start()
    query(url, "CREATE TABLE kept AS SELECT current_setting('work_mem') AS memory")
    pid = postmaster_pid(folder)
    first.stop()
    assert are_gone(pid)
    begun = time.monotonic()
    assert first.start() == url
    assert time.monotonic() - begun < 2
    assert query(url, "SELECT memory FROM kept") == "8MB"
    first.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("death_signal", [True, False], ids=["kernel", "watcher"])
def test_no_signal_leaves_a_process_behind(data: Path, number: int, death_signal: bool) -> None:
    """However the owner ends, its server is gone within three seconds and the data is there at the next start."""
    with another_process(data, death_signal=death_signal) as owner:
        url = first_line(owner)
        query(url, "CREATE TABLE kept AS SELECT 1 AS number")
        processes = family(postmaster_pid(data))
        os.killpg(owner.pid, number)
    assert eventually(lambda: are_gone(*processes), 3)
    again = EmbeddedPostgres(data)
    assert query(again.start(), "SELECT number FROM kept") == 1
    again.stop()


def test_a_start_right_after_sigkill_does_not_join_the_dying_server(data: Path) -> None:
    """Started in the moment its predecessor was killed, the new owner has a server of its own that stays."""
    with another_process(data) as owner:
        url = first_line(owner)
        previous = postmaster_pid(data)
        owner.kill()
        owner.wait()
        successor = EmbeddedPostgres(data)
        assert successor.start() == url
        assert postmaster_pid(data) != previous
        assert query(url, "SELECT 1") == 1
        successor.stop()


def test_a_killed_server_is_started_again(server: EmbeddedPostgres, folder: Path) -> None:
    """A server killed by force is back at the same address, with its data, within five seconds."""
    query(server.url, "CREATE TABLE kept AS SELECT 1 AS number")
    previous = postmaster_pid(folder)
    os.kill(previous, signal.SIGKILL)
    assert eventually(lambda: is_up_again(server.url, previous, folder), 5)
    assert query(server.url, "SELECT number FROM kept") == 1


def test_a_server_is_not_started_again_for_ever(server: EmbeddedPostgres, folder: Path) -> None:
    """A server that dies a fourth time within a minute stays down for the time being."""
    for _ in range(3):
        previous = postmaster_pid(folder)
        os.kill(previous, signal.SIGKILL)
        assert eventually(lambda: is_up_again(server.url, previous, folder), 5)  # noqa: B023 - called in this round
    last = postmaster_pid(folder)
    os.kill(last, signal.SIGKILL)
    assert eventually(lambda: are_gone(last), 3)
    assert not eventually(lambda: find_postmaster(folder / "postgresql") is not None, 1.5)


def test_a_second_process_uses_the_server_and_leaves_it_running(server: EmbeddedPostgres, folder: Path) -> None:
    """A second process gets the same address, and its end does not stop the server."""
    pid = postmaster_pid(folder)
    with another_process(folder) as guest:
        assert first_line(guest) == server.url
        guest.communicate(timeout=10)
        assert guest.returncode == 0
    assert postmaster_pid(folder) == pid
    assert query(server.url, "SELECT 1") == 1


def test_whoever_still_needs_the_server_takes_it_over(data: Path) -> None:
    """When the process that started the server ends, the one that shares it starts it again at the same address."""
    with another_process(data) as owner:
        url = first_line(owner)
        previous = postmaster_pid(data)
        guest = EmbeddedPostgres(data)
        assert guest.start() == url
        owner.communicate(timeout=10)
    assert eventually(lambda: is_up_again(url, previous, data), 5)
    guest.stop()
    assert find_postmaster(data / "postgresql") is None


def test_two_first_starts_at_once_share_one_server(folder: Path) -> None:
    """Two processes that start on an empty folder in the same moment end up with one server."""
    with another_process(folder) as one, another_process(folder) as two:
        assert first_line(one) == first_line(two)
        one.communicate(timeout=10)
        two.communicate(timeout=10)
    assert find_postmaster(folder / "postgresql") is None


def test_a_killed_first_start_does_no_harm(folder: Path) -> None:
    """A first start that is killed while it makes the database is as if it had not been."""
    with another_process(folder) as owner:
        assert eventually(lambda: any(folder.glob("postgresql.new-*/base")), 10)
        owner.kill()
    again = EmbeddedPostgres(folder)
    assert query(again.start(), "SELECT current_database()::text") == "shopassist"
    again.stop()


def test_an_ordinary_user_runs_it_too(folder: Path) -> None:
    """An account without rights runs the server as itself, in a folder of its own."""
    account = UNPRIVILEGED if ROOT else OsAccount.of(os.geteuid())
    account.give(folder)
    with another_process(folder, account) as owner:
        assert query(first_line(owner), "SELECT 1") == 1
        assert (folder / "postgresql").stat().st_uid == account.user
        processes = family(postmaster_pid(folder))
        owner.kill()
    assert eventually(lambda: are_gone(*processes), 3)


def test_a_pid_that_another_program_has_now_is_no_server(folder: Path) -> None:
    """The server starts after a crash although another program has its pid now, as happens in containers."""
    account = UNPRIVILEGED if ROOT else OsAccount.of(os.geteuid())
    account.give(folder)
    with another_process(folder, account) as owner:
        first_line(owner)
        pid_file = folder / "postgresql/postmaster.pid"
        lines = pid_file.read_text().splitlines()
        owner.communicate(timeout=10)
    with subprocess.Popen(["sleep", "60"], user=account.user if account.is_other_user else None) as bystander:
        try:
            pid_file.write_text("\n".join([str(bystander.pid), *lines[1:], ""]))
            account.give(pid_file)
            with another_process(folder, account) as owner:
                assert query(first_line(owner), "SELECT 1") == 1
        finally:
            bystander.kill()


def test_data_goes_where_the_account_can_reach_it(folder: Path) -> None:
    """In a closed folder root's server keeps its data below /var/lib/shopassist, an ordinary user's right there."""
    folder.chmod(0o700)
    embedded = EmbeddedPostgres(folder / "project/.data")
    try:
        assert query(embedded.start(), "SELECT 1") == 1
        assert embedded.data_directory.is_relative_to("/var/lib/shopassist" if ROOT else folder.resolve())
        assert EmbeddedPostgres(folder / "project/.data").data_directory == embedded.data_directory
    finally:
        embedded.stop()
        shutil.rmtree(embedded.data_directory)


def test_programs_in_a_closed_folder_are_copied(folder: Path) -> None:
    """Programs that the account cannot reach are copied, with their libraries, to where it can run them."""
    installed = find_binaries()
    package = installed.folder.parents[1]
    shutil.copytree(package / "pginstall", folder / package.name / "pginstall")
    folder.chmod(0o700)
    account = UNPRIVILEGED if ROOT else OsAccount.of(os.geteuid())
    found = make_runnable(account, Binaries(folder / package.name / "pginstall/bin", installed.version))
    try:
        command = ["setpriv", f"--reuid={account.user}", "--clear-groups"] if account.is_other_user else []
        said = subprocess.check_output([*command, found.program("postgres"), "--version"], text=True)
        assert f" {found.version}." in said
    finally:
        if account.is_other_user:
            shutil.rmtree(found.folder.parents[2])


def test_the_log_does_not_grow_for_ever(data: Path) -> None:
    """A log past ten megabytes is emptied at the next start."""
    log = data / "postgresql.log"
    log.write_bytes(b"x" * 10_000_001)
    embedded = EmbeddedPostgres(data)
    embedded.start()
    embedded.stop()
    assert 0 < log.stat().st_size < 100_000


def test_data_of_another_version_is_refused(folder: Path) -> None:
    """Data of another major version is left alone, with a sentence that names both versions and the folder."""
    (folder / "postgresql").mkdir()
    (folder / "postgresql/PG_VERSION").write_text("9\n")
    UNPRIVILEGED.give(folder / "postgresql") if ROOT else None
    with pytest.raises(StartupError, match=rf"{folder}/postgresql is of PostgreSQL 9 and this is PostgreSQL \d+"):
        EmbeddedPostgres(folder).start()


def test_a_folder_with_something_else_in_it_is_refused(folder: Path) -> None:
    """A folder that holds no complete cluster is left alone, with a sentence that tells what to do."""
    (folder / "postgresql").mkdir()
    (folder / "postgresql/notes.txt").write_text("mine")
    UNPRIVILEGED.give(folder / "postgresql") if ROOT else None
    with pytest.raises(StartupError, match="not a complete PostgreSQL data folder"):
        EmbeddedPostgres(folder).start()
    assert (folder / "postgresql/notes.txt").read_text() == "mine"


def test_damaged_data_is_reported_in_the_words_of_postgresql(data: Path) -> None:
    """Where PostgreSQL itself gives up, its last word is quoted in the sentence and the lock is free again."""
    embedded = EmbeddedPostgres(data)
    embedded.start()
    embedded.stop()
    (data / "postgresql/global/pg_control").rename(data / "pg_control")
    with pytest.raises(StartupError, match=r"cannot start on .*pg_control.*; see .*postgresql.log"):
        embedded.start()
    (data / "pg_control").rename(data / "postgresql/global/pg_control")
    assert query(embedded.start(), "SELECT 1") == 1
    embedded.stop()


@pytest.mark.parametrize("content", [b"", b" \n", bytes(32), b"a b", None], ids=str)
def test_a_damaged_password_is_refused(data: Path, content: bytes | None) -> None:
    """The sentence names the file; with a line end after it the password is accepted."""
    file = data / "postgresql.password"
    password = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    embedded = EmbeddedPostgres(data)
    with pytest.raises(StartupError, match=f"{file} with the password of the database is missing or damaged"):
        embedded.start()
    file.write_bytes(password + b"\n")
    if content is None:
        assert query(embedded.start(), "SELECT 1") == 1
        embedded.stop()


def test_a_user_without_a_name_is_told_what_to_do(folder: Path) -> None:
    """Containers run as any number, and PostgreSQL insists on a name when it makes a database."""
    unnamed = next(number for number in range(54_321, 65_000) if not OsAccount.of(number).has_name)
    with pytest.raises(StartupError, match=f"user {unnamed}, which has no name: .*DATABASE_URL"):
        DataFolder(folder, OsAccount.of(unnamed)).ensure_cluster(find_binaries())
    assert list(folder.iterdir()) == []


def test_a_folder_without_permission_is_refused(folder: Path) -> None:
    """A folder the user cannot write ends the process with one sentence and no traceback."""
    folder.chmod(0o500)
    with another_process(folder / "data", UNPRIVILEGED if ROOT else None) as process:
        _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"The data folder {folder}/data cannot be used as " in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("death_signal", ["yes", "no"], ids=["kernel", "thread"])
def test_a_process_can_die_with_its_parent(death_signal: str) -> None:
    """A process that asked for it gets its signal when the parent is killed by force."""
    command = [sys.executable, "-c", PARENT, CHILD, death_signal]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as parent:
        child = int(first_line(parent))
        parent.kill()
    assert eventually(lambda: are_gone(child), 2)
