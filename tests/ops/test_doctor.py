"""`shopassist doctor` finds each problem that it checks for."""

import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.ops import doctor, dumps, files
from shopassist.ops.backups import create_backup, get_manifest_file, list_backups, read_manifest, write_manifest
from shopassist.ops.doctor import Deployment, Finding, print_findings, run_checks
from shopassist.settings import IdentitySettings, ServerSettings, Settings
from shopassist.settings.database import BackupSettings, DatabaseConfig, PoolMode
from tests.support.helpers import execute, postgres_settings

ALWAYS_FOUND = {"roles", "durability"}
"""Problems of every test: its role is a superuser, and its server does not write durably."""


@dataclass(slots=True)
class Patient:
    """A deployment that tests break: settings, database and backup folder."""

    settings: Settings
    url: str
    folder: Path

    async def run(self, *statements: str) -> None:
        """Execute statements in the database."""
        for statement in statements:
            await execute(self.url, statement)

    def change(self, group: str, **values: object) -> None:
        """Change settings of a group."""
        changed = getattr(self.settings, group).model_copy(update=values)
        self.settings = self.settings.model_copy(update={group: changed})

    async def findings(self) -> dict[str, Finding]:
        """Return the findings by the name of the check."""
        return {finding.check: finding for finding in await run_checks(self.settings)}


@pytest.fixture
async def patient(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    """Return a deployment in production with no other problem than `ALWAYS_FOUND`."""
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "none")  # the folder of the tests may be in memory
    settings = postgres_settings(database_url).model_copy(
        update={
            "server": ServerSettings(environment="production", allowed_hosts=("shop.example",)),
            "identity": IdentitySettings(
                secret_key=SecretStr("s" * 32), oidc_issuer="https://id.example/", oidc_audience="shop"
            ),
            "backup": BackupSettings(folder=tmp_path),
        }
    )
    await create_backup(normalise_dsn(database_url), tmp_path, None)
    return Patient(settings, database_url, tmp_path)


async def _older_schema(patient: Patient) -> None:
    await migrate.downgrade(normalise_dsn(patient.url), "-1")


async def _lost_index(patient: Patient) -> None:
    await patient.run("DROP INDEX ix_credit_holds_expires_at")


async def _broken_index(patient: Patient) -> None:
    await patient.run(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_credit_holds_expires_at'::regclass"
    )


async def _no_vacuum(patient: Patient) -> None:
    await patient.run("ALTER TABLE products SET (autovacuum_enabled = false)")


async def _dead_rows(patient: Patient) -> None:
    # The number is PostgreSQL's estimate: an analysis that autovacuum makes meanwhile changes it a little.
    connection = await asyncpg.connect(patient.url)
    await connection.execute("""
        INSERT INTO query_cache (query_hash, result, cached_at, expires_at)
        SELECT n::text, '{}', now(), now() + interval '1 hour' FROM generate_series(1, 20001) AS n;
        DELETE FROM query_cache
    """)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.close()


async def _excessive_privileges(patient: Patient) -> None:
    await patient.run("GRANT UPDATE ON consent_events TO PUBLIC")


async def _missing_money(patient: Patient) -> None:
    await patient.run("""
        INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
        VALUES ('auth0|1', false, 7, 50, now())
    """)


async def _forgotten_hold(patient: Patient) -> None:
    await patient.run("""
        INSERT INTO credit_holds (hold_id, user_id, amount, expires_at)
        VALUES (gen_random_uuid(), 'auth0|1', 1, now() - interval '1 hour')
    """)


async def _not_durable(patient: Patient) -> None:
    name = patient.url.rpartition("/")[2]
    await patient.run(f"ALTER DATABASE {name} SET synchronous_commit = off")


async def _too_many_workers(patient: Patient) -> None:
    patient.change("server", workers=100)


async def _open_door(patient: Patient) -> None:
    patient.change("server", allowed_hosts=("*",))


async def _no_backup(patient: Patient) -> None:
    patient.change("backup", folder=patient.folder / "none")


async def _old_backup(patient: Patient) -> None:
    patient.change("backup", longest_age_hours=1e-9)


async def _damaged_backup(patient: Patient) -> None:
    [name] = [path.stem for path in patient.folder.glob("*.json")]
    get_manifest_file(patient.folder, name).write_text("{")


async def _lost_backup(patient: Patient) -> None:
    [dump] = patient.folder.glob("*.dump")
    dump.unlink()


async def _cut_backup(patient: Patient) -> None:
    [dump] = patient.folder.glob("*.dump")
    dump.write_bytes(dump.read_bytes()[:-1])


async def _unverified_backups(patient: Patient) -> None:
    patient.change("backup", keep=1)


async def _last_verified_long_ago(patient: Patient) -> None:
    [name] = list_backups(patient.folder)
    then = datetime.now(UTC) - timedelta(days=31)
    write_manifest(patient.folder, read_manifest(patient.folder, name).model_copy(update={"verified_at": then}))


async def _no_redis(patient: Patient) -> None:
    with socket.socket() as unused_socket:
        unused_socket.bind(("127.0.0.1", 0))
        patient.change("cache", redis_url=SecretStr(f"redis://127.0.0.1:{unused_socket.getsockname()[1]}/0"))


async def _no_terms(patient: Patient) -> None:
    patient.change("consent", required=True)


async def _record_without_history(patient: Patient) -> None:
    await patient.run("INSERT INTO user_consents VALUES ('a', true, true), ('b', true, false), ('c', false, false)")
    await patient.run("""
        INSERT INTO consent_events (user_id, is_guest, purpose, granted, source)
        VALUES ('b', false, 'terms', true, 'record'), ('c', true, 'terms', true, 'consents')
    """)


@pytest.mark.parametrize(
    ("break_deployment", "check", "seen"),
    [
        (_older_schema, "migrations", "needs"),
        (_lost_index, "indexes", "missing: ix_credit_holds_expires_at"),
        (_broken_index, "indexes", "not valid: ix_credit_holds_expires_at"),
        (_no_vacuum, "bloat", "autovacuum is off"),
        (_dead_rows, "bloat", "query_cache has 20,"),
        (_excessive_privileges, "privileges", "PUBLIC may UPDATE consent_events"),
        (_missing_money, "ledger", "-7 credits apart"),
        (_forgotten_hold, "scheduled work", "1 holds"),
        (_no_terms, "consent", "no terms are published"),
        (_record_without_history, "consent", "1 consent records differ"),
        (_not_durable, "durability", "fsync, synchronous_commit off"),
        (_too_many_workers, "connections", "100 workers"),
        (_open_door, "settings", "ALLOWED_HOSTS"),
        (_no_redis, "shared cache", "does not answer"),
        (_no_backup, "backups", "there is none"),
        (_old_backup, "backups", "hours old"),
        (_damaged_backup, "backups", "damaged"),
        (_lost_backup, "backups", "missing"),
        (_cut_backup, "backups", "cut off"),
        (_unverified_backups, "backups", "none was verified"),
        (_last_verified_long_ago, "backups", "was verified on"),
    ],
)
async def test_each_problem_is_reported(
    patient: Patient, break_deployment: Callable[[Patient], Awaitable[None]], check: str, seen: str
) -> None:
    """The check reports the problem and a fix; no other check does."""
    await break_deployment(patient)
    findings = await patient.findings()
    assert seen in findings[check].observation
    assert {name for name, finding in findings.items() if not finding.is_healthy} == {check, *ALWAYS_FOUND}
    assert not print_findings(list(findings.values()))


@pytest.mark.parametrize("spoil", [_damaged_backup, _lost_backup, _cut_backup])
async def test_a_spoilt_backup_is_to_be_replaced(patient: Patient, spoil: Callable[[Patient], Awaitable[None]]) -> None:
    """A schedule would not help. An older one counts too, since the disk lost it."""
    [name] = list_backups(patient.folder)
    await spoil(patient)
    await create_backup(normalise_dsn(patient.url), patient.folder, None)
    finding = (await patient.findings())["backups"]
    assert name in finding.observation
    assert finding.fix
    assert "look at the disk" in finding.fix
    assert "schedule" not in finding.fix


async def test_a_healthy_deployment(patient: Patient, capsys: pytest.CaptureFixture[str]) -> None:
    """A superuser is accepted outside production."""
    assert {name for name, finding in (await patient.findings()).items() if not finding.is_healthy} == ALWAYS_FOUND
    patient.change("server", environment="development")
    assert {name for name, finding in (await patient.findings()).items() if not finding.is_healthy} == {"durability"}
    print_findings([finding for finding in await run_checks(patient.settings) if finding.is_healthy])
    assert "all well" in capsys.readouterr().out


async def test_a_folder_that_does_not_last_is_reported(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory, also by a link to it, and the layer of a container, but no volume in them."""
    monkeypatch.undo()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        (tmp_path / "link").symlink_to(memory)
        for folder in (Path(memory), tmp_path / "link" / "backups"):
            patient.change("backup", folder=folder)
            finding = (await patient.findings())["backup folder"]
            assert "in memory" in finding.observation
            assert not finding.is_healthy
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /back\\040ups rw shared:1 - ext4 /dev/sda rw\n"
        "3 1 0:3 / /back\\040ups/memory rw - tmpfs tmpfs rw\n"
    )
    monkeypatch.setattr(files, "MOUNTS", mounts)
    for text, loss in (
        ("/other", "layer"),
        ("/back ups/today", ""),
        ("/back ups/memory", "in memory"),
        ("/back", "la"),
    ):
        assert loss in (files.describe_passing_folder(Path(text)) or "")
    assert files.describe_passing_folder(Path("/back ups/today")) is None


async def test_a_folder_that_cannot_be_written_to_is_reported(patient: Patient, tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "backups"):
        patient.change("backup", folder=folder)
        finding = (await patient.findings())["backup folder"]
        assert not finding.is_healthy
        assert "cannot be written to" in finding.observation


async def test_missing_programs_are_reported(patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also outside production: `backup create` refuses to start."""
    monkeypatch.setattr(dumps, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pg_restore 18 fit PostgreSQL 18" in (await patient.findings())["backup programs"].observation
    patient.change("server", environment="development")
    patient.change("database", migration_url=SecretStr(f"{patient.url}?sslmode=require"))
    finding = (await patient.findings())["backup programs"]
    assert "over TLS needs pg_dump and pg_restore of version 18 or later" in finding.observation
    assert not finding.is_healthy
    pooled = {"migration_url": None, "pool_mode": PoolMode.TRANSACTION}
    patient.change("database", **pooled)
    assert "DATABASE_DIRECT_URL" in (await patient.findings())["backup programs"].observation


async def test_an_empty_database_lacks_its_schema(patient: Patient, empty_database_url: str) -> None:
    """Without a schema the checks of its contents are skipped."""
    database = DatabaseConfig(database_url=SecretStr(empty_database_url))
    patient.settings = patient.settings.model_copy(update={"database": database})
    findings = await patient.findings()
    assert "revision base" in findings["migrations"].observation
    assert "ledger" not in findings


async def test_a_link_over_a_network_must_be_encrypted(patient: Patient) -> None:
    """Connections over a network need TLS; loopback and sockets do not."""
    connection = await asyncpg.connect(patient.url)
    try:
        for host, healthy in (
            ("127.0.0.1", True),
            ("::1", True),
            ("localhost", True),
            ("10.1.2.3", False),
            ("db", False),
        ):
            deployment = Deployment(patient.settings, normalise_dsn(patient.url).set(host=host), connection)
            assert (await doctor.check_tls(deployment)).is_healthy is healthy
    finally:
        await connection.close()


async def test_a_clock_difference_is_reported(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference of ten minutes is a problem."""

    class Off(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Off":
            return datetime.now(UTC) + timedelta(minutes=10)  # type: ignore[return-value]

    monkeypatch.setattr(doctor, "datetime", Off)
    finding = (await patient.findings())["clock"]
    assert not finding.is_healthy
    assert "-600" in finding.observation or "-599" in finding.observation
