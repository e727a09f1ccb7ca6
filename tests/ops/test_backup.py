"""Backups of a real database: create, verify, restore, and errors."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pyrage
import pytest
from pydantic import SecretStr
from sqlalchemy import URL
from typer.testing import CliRunner

from containers import Container
from shopassist.cli import app
from shopassist.consent.models import UserConsentCreate
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.errors import BackupError, StartupError
from shopassist.ops import backups
from shopassist.ops.backups import (
    BackupManifest,
    create_backup,
    get_dump_file,
    get_manifest_file,
    prune_backups,
    restore_backup,
    verify_backup,
)
from shopassist.ops.startup import prepare
from shopassist.settings.database import BackupSettings
from tests.support.helpers import execute, postgres_settings, replace_database_name


@pytest.fixture
def url(database_url: str) -> URL:
    """Return the DSN of the database."""
    return normalise_dsn(database_url)


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Container]:
    """Return the container of a database with an account, its ledger and a consent."""
    container = Container(settings=postgres_settings(database_url))
    await container.credit_service().deduct_credit("auth0|1", amount=3)
    await container.consent_service().create_consent("auth0|1", UserConsentCreate())
    yield container
    await container.shutdown()


async def nothing(_: URL) -> None:
    """Finish a restore without further work."""


def files(folder: Path) -> list[Path]:
    """List the files of a folder."""
    return list(folder.iterdir())


async def databases(url: str) -> set[str]:
    """Return the databases of the server that belong to the one at `url`."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE current_database() || '%'")
    finally:
        await connection.close()
    return {row["datname"] for row in rows}


def altered(folder: Path, made: BackupManifest, change: Callable[[dict[str, object]], None]) -> None:
    """Change the manifest of a backup."""
    file = get_manifest_file(folder, made.name)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


async def test_a_backup_brings_back_what_there_was(
    shop: Container, url: URL, database_url: str, tmp_path: Path
) -> None:
    """A running server sees the restored data; the replaced database is kept."""
    made = await create_backup(url, tmp_path, None)
    await shop.credit_service().deduct_credit("auth0|1", amount=10)
    assert await shop.credit_service().check_credits("auth0|1") == 37
    old = await restore_backup(url, tmp_path, made.name, None, nothing)
    assert await shop.credit_service().check_credits("auth0|1") == 47
    assert (await shop.ledger_reconciliation().verify()) is not None
    assert await databases(database_url) == {url.database, old}
    kept = await asyncpg.connect(replace_database_name(database_url, old))
    assert await kept.fetchval("SELECT available_credits FROM user_credits") == 37
    await kept.close()
    await execute(database_url, f"DROP DATABASE {old}".replace(old, f'"{old}"'))


async def test_who_was_erased_does_not_come_back(
    shop: Container, url: URL, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users erased since the backup are erased again before the swap; all others are restored."""
    await shop.credit_service().deduct_credit("auth0|stays", amount=4)
    made = await create_backup(url, tmp_path, None)
    await shop.erasure_service().erase("auth0|1", is_guest=False)
    await shop.credit_service().deduct_credit("auth0|stays", amount=10)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BACKUP_FOLDER", str(tmp_path))
    result = await asyncio.to_thread(CliRunner().invoke, app, ["backup", "restore", made.name, "--yes"])
    assert result.exit_code == 0, result.output
    connection = await asyncpg.connect(database_url)
    named = "SELECT count(*) FROM credit_transactions t FULL JOIN user_consents c USING (user_id) WHERE user_id = $1"
    assert await connection.fetchval(named, "auth0|1") == 0
    assert await connection.fetchval(named, "auth0|stays") == 2
    assert await connection.fetchval("SELECT count(*) FROM user_credits WHERE user_id = 'auth0|1'") == 0
    balance = "SELECT available_credits FROM user_credits WHERE user_id = 'auth0|stays'"
    assert await connection.fetchval(balance) == 46
    await connection.close()
    report = await shop.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0
    [old] = await databases(database_url) - {url.database}
    await execute(database_url, f'DROP DATABASE "{old}"')


async def test_the_manifest_says_what_is_in_it(shop: Container, url: URL, tmp_path: Path) -> None:
    """It has counts and sums of the dumped snapshot; only the owner can read the files."""
    made = await create_backup(url, tmp_path, None)
    assert (made.contents.revision, made.contents.ledger_sum) == (migrate.list_known_revisions()[-1], 47)
    assert made.contents.balance_sum == 47
    assert (made.contents.rows["credit_transactions"], made.contents.rows["user_consents"]) == (2, 1)
    assert backups.read_manifest(tmp_path, made.name) == made
    assert await verify_backup(url, tmp_path, made.name, None) == made.contents
    assert {path.stat().st_mode & 0o777 for path in files(tmp_path)} == {0o600}


async def test_an_encrypted_backup_is_read_with_its_key_alone(shop: Container, url: URL, tmp_path: Path) -> None:
    """The files contain no plain text."""
    key, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    made = await create_backup(url, tmp_path, str(key.to_public()))
    assert made.encrypted
    assert b"user_credits" not in get_dump_file(tmp_path, made.name).read_bytes()
    assert await verify_backup(url, tmp_path, made.name, f"# a comment\n{key}\n") == made.contents
    for identity, reason in ((None, "encrypted"), (str(other), "cannot be decrypted"), ("x", "no private key")):
        with pytest.raises(BackupError, match=reason):
            await verify_backup(url, tmp_path, made.name, identity)
    with pytest.raises(BackupError, match="no public key"):
        await create_backup(url, tmp_path, "age1nonsense")


def _cut(folder: Path, made: BackupManifest) -> None:
    file = get_dump_file(folder, made.name)
    file.write_bytes(file.read_bytes()[:-10])


def _damage(folder: Path, made: BackupManifest) -> None:
    file = get_dump_file(folder, made.name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _lose(folder: Path, made: BackupManifest) -> None:
    get_dump_file(folder, made.name).unlink()


def _from_the_future(folder: Path, made: BackupManifest) -> None:
    altered(folder, made, lambda content: content["contents"].update(revision="9999"))  # type: ignore[attr-defined]


def _miscounted(folder: Path, made: BackupManifest) -> None:
    altered(folder, made, lambda content: content["contents"].update(ledger_sum=1))  # type: ignore[attr-defined]


def _illegible(folder: Path, made: BackupManifest) -> None:
    get_manifest_file(folder, made.name).write_text("{")


def _of_another(folder: Path, made: BackupManifest) -> None:
    altered(folder, made, lambda content: content.update(name="20260101T000000Z-abcdef"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_cut, "cut off"),
        (_damage, "damaged"),
        (_lose, "missing"),
        (_from_the_future, "does not know"),
        (_miscounted, "ledger_sum"),
        (_illegible, "cannot be read"),
        (_of_another, "is that of"),
    ],
)
async def test_what_is_not_whole_is_refused_and_nothing_is_touched(
    shop: Container,
    url: URL,
    database_url: str,
    tmp_path: Path,
    spoil: Callable[[Path, BackupManifest], None],
    reason: str,
) -> None:
    """The database is unchanged, and no scratch database remains."""
    made = await create_backup(url, tmp_path, None)
    spoil(tmp_path, made)
    with pytest.raises(BackupError, match=reason):
        await restore_backup(url, tmp_path, made.name, None, nothing)
    assert await databases(database_url) == {url.database}
    assert await shop.credit_service().check_credits("auth0|1") == 47


async def test_what_fails_before_the_swap_leaves_all_as_it_was(
    shop: Container, url: URL, database_url: str, tmp_path: Path
) -> None:
    """A restored database that cannot be prepared is dropped."""

    async def broken(_: URL) -> None:
        raise StartupError("no")

    made = await create_backup(url, tmp_path, None)
    with pytest.raises(StartupError, match="no"):
        await restore_backup(url, tmp_path, made.name, None, broken)
    assert await databases(database_url) == {url.database}


@pytest.mark.parametrize("name", ["20260101T000000Z-abcdef", "../../etc/passwd", ""])
async def test_names_of_no_backup_are_refused(url: URL, tmp_path: Path, name: str) -> None:
    """The error is one sentence."""
    with pytest.raises(BackupError, match=r"no name of a backup|There is no backup"):
        await verify_backup(url, tmp_path, name, None)


async def test_an_empty_database_is_not_backed_up(empty_database_url: str, tmp_path: Path) -> None:
    """A database without the schema cannot be backed up."""
    with pytest.raises(BackupError, match="nothing to back up"):
        await create_backup(normalise_dsn(empty_database_url), tmp_path, None)
    assert files(tmp_path) == []


async def test_only_the_newest_are_kept(shop: Container, url: URL, tmp_path: Path) -> None:
    """Dumps are removed with their manifests, and so are old files of failed backups."""
    first = await create_backup(url, tmp_path, None)
    names = [first.name]
    for second in range(3):
        name = f"20990101T00000{second}Z-abcdef"
        shutil.copy(get_dump_file(tmp_path, first.name), get_dump_file(tmp_path, name))
        get_manifest_file(tmp_path, name).write_text(first.model_copy(update={"name": name}).model_dump_json())
        names.append(name)
    (tmp_path / "20990101T000009Z-abcdef.partial").touch()
    assert prune_backups(tmp_path, 2) == names[:2]
    assert backups.list_backups(tmp_path) == names[2:]
    assert len(files(tmp_path)) == 5


async def test_a_start_that_migrates_backs_up_first(shop: Container, url: URL, tmp_path: Path) -> None:
    """With BACKUP_BEFORE_MIGRATION a start that migrates makes a backup of the old schema; others do not."""
    settings = shop.settings().model_copy(update={"backup": BackupSettings(folder=tmp_path, before_migration=True)})
    await prepare(settings, shop.unit_of_work())
    assert backups.list_backups(tmp_path) == []
    await migrate.downgrade(url, "-1")
    older = await migrate.get_current_revision(url)
    await prepare(settings, shop.unit_of_work())
    [name] = backups.list_backups(tmp_path)
    assert backups.read_manifest(tmp_path, name).contents.revision == older
    assert await migrate.get_current_revision(url) == migrate.list_known_revisions()[-1]


async def test_the_app_and_the_owner_back_up_and_roles_come_back(
    shop: Container, url: URL, database_url: str, tmp_path: Path
) -> None:
    """The read-only role may dump all tables."""
    await execute(database_url, "CREATE ROLE backup_reader LOGIN PASSWORD 'secret'")
    try:
        await execute(database_url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO backup_reader")
        await execute(database_url, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO backup_reader")
        reader = url.set(username="backup_reader", password="secret")  # noqa: S106 - a test's own
        made = await create_backup(reader, tmp_path, None)
        assert await verify_backup(url, tmp_path, made.name, None) == made.contents
        with pytest.raises(BackupError, match="DATABASE_ADMIN_URL"):
            await verify_backup(reader, tmp_path, made.name, None)
    finally:
        await execute(database_url, "DROP OWNED BY backup_reader")
        await execute(database_url, "DROP ROLE backup_reader")


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are not printed."""
    monkeypatch.setenv("BACKUP_IDENTITY", "AGE-SECRET-KEY-1")
    settings = BackupSettings()
    assert isinstance(settings.identity, SecretStr)
    assert "AGE" not in repr(settings)
