"""Settings with several spellings, and refusals in one sentence that names the variable."""

from pathlib import Path

import pytest

from shopassist.errors import StartupError
from shopassist.settings import Settings, read_settings


def read(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of an environment with this variable."""
    monkeypatch.setenv(name, value)
    return read_settings()


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        *(("ENVIRONMENT", text, "production") for text in ("production", "Production", "PROD", " prod ")),
        *(("ENVIRONMENT", text, "development") for text in ("", "dev", "Development", "local")),
        *(("ENVIRONMENT", text, text) for text in ("staging", "test")),
        *(("LOG_LEVEL", text, "warning") for text in ("WARNING", "warn", "Warning")),
        *(("LOG_LEVEL", text, text.lower()) for text in ("DEBUG", "info", "ERROR", "critical")),
        ("LOG_LEVEL", "fatal", "critical"),
    ],
)
def test_names_are_read_in_any_case_and_with_their_aliases(
    name: str, written: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `production` has rules of its own."""
    server = read(name, written, monkeypatch).server
    assert (server.environment if name == "ENVIRONMENT" else server.log_level) == meant
    assert server.production is (meant == "production")


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        ("https://shop.example", ["https://shop.example"]),
        ("https://Shop.Example/", ["https://shop.example"]),
        ("HTTPS://shop.example:443", ["https://shop.example"]),
        ("http://shop.example:80, https://a.example:8443 ,", ["http://shop.example", "https://a.example:8443"]),
        ("http://[::1]:5173,http://127.0.0.1:5173", ["http://[::1]:5173", "http://127.0.0.1:5173"]),
        ("https://bücher.example", ["https://xn--bcher-kva.example"]),
    ],
)
def test_origins_are_written_as_browsers_send_them(
    written: str, origins: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FRONTEND_URL may be a list."""
    assert read("FRONTEND_URL", written, monkeypatch).server.origins[2:] == origins


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("*", ("*",)),
        ("Shop.Example, *.b.Example,", ("shop.example", "*.b.example")),
        ("localhost,app_1,10.0.0.1", ("localhost", "app_1", "10.0.0.1")),
        ("[::1],2001:DB8:0::1", ("::1", "2001:db8::1")),
        ("shop.example.", ("shop.example",)),
        ("bücher.example", ("xn--bcher-kva.example",)),
    ],
)
def test_allowed_hosts_are_written_as_they_are_compared(
    written: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPv6 addresses may be in brackets."""
    assert read("ALLOWED_HOSTS", written, monkeypatch).server.allowed_hosts == names


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ENVIRONMENT", text) for text in ("prodution", "produktion", "live!", '"production"', "1")),
        *(("LOG_LEVEL", text) for text in ("loud", "trace", "20")),
        *(
            ("FRONTEND_URL", text)
            for text in (
                "shop.example",
                "//shop.example",
                "https://shop.example/app",
                "https://shop.example?a=b",
                "https://shop.example#a",
                "https://me:secret@shop.example",
                "https://shop.example https://a.example",
                "https://shop.example,a.example",
                "https://*.shop.example",
                "https://shop.example:99999",
                "https://",
                "ftp://shop.example",
                "*",
                "null",
            )
        ),
        *(
            ("ALLOWED_HOSTS", text)
            for text in (
                "https://shop.example",
                "shop.example:443",
                "a.example, shop.example/",
                "shop.example a.example",
                ".shop.example",
                "*shop.example",
                "shop.*",
                "[::1]:8000",
                "10.0.0.0/8",
                ",",
            )
        ),
        *(
            (f"MAX_{who}_CREDITS", text)
            for who in ("GUEST", "REGISTERED")
            for text in ("0", "-1", "2147483648", "many")
        ),
        *(("API_PORT", text) for text in ("eight", "-1", "65536", "http://10.0.0.1:80", "8000/tcp")),
        *((name, __file__) for name in ("SHOPASSIST_DATA", "BACKUP_FOLDER")),
        *((name, f"{__file__}/below/it") for name in ("SHOPASSIST_DATA", "BACKUP_FOLDER")),
        ("SHOPASSIST_DATA", "~unknown-user/data"),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", f"{'k' * 20}{' ' * 20}"),
        ("SECRET_KEY", " " * 40),
        ("METRICS_TOKEN", " " * 40),
        ("BACKUP_IDENTITY", "\t"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the variable, and shows no value of a secret."""
    with pytest.raises(StartupError, match=f"^The setting {name} is not valid: .*[^.]\\.$") as refusal:
        read(name, value, monkeypatch)
    assert "\n" not in refusal.value.detail
    assert "secret" not in refusal.value.detail
    assert "Value error" not in refusal.value.detail


@pytest.mark.parametrize("name", ["SECRET_KEY", "METRICS_TOKEN", "DATABASE_URL"])
@pytest.mark.parametrize("content", [" " * 64, "\t\n \n"])
def test_a_secret_of_spaces_is_refused_in_a_file_too(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are checked like variables."""
    file = tmp_path / "secret"
    file.write_text(content)
    with pytest.raises(StartupError, match=name):
        read(f"{name}_FILE", str(file), monkeypatch)


def test_a_short_secret_is_refused_in_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces around it do not count."""
    file = tmp_path / "secret"
    file.write_text(f"   plant3d{' ' * 40}\n")
    with pytest.raises(StartupError, match="SECRET_KEY") as refusal:
        read("SECRET_KEY_FILE", str(file), monkeypatch)
    assert "plant3d" not in refusal.value.detail


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:8000", "udp://10.0.0.1:53", "tcp://[fd00::1]:8000"])
def test_the_address_of_a_kubernetes_service_is_no_port(
    value: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is ignored with a warning."""
    assert read("API_PORT", value, monkeypatch).server.port == 8000
    output = capfd.readouterr()
    assert "API_PORT" in output.out + output.err


def test_the_home_folder_may_be_abbreviated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No shell does it for lines of `.env`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BACKUP_FOLDER", "~/backups")
    (tmp_path / "key").write_text("k" * 32)
    monkeypatch.setenv("SECRET_KEY_FILE", "~/key")
    settings = read("SHOPASSIST_DATA", "~/data", monkeypatch)
    assert settings.identity.secret_key
    assert (settings.database.data_folder, settings.backup.folder) == (tmp_path / "data", tmp_path / "backups")


def write_env_file(content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Write a `.env` file into the working folder."""
    (tmp_path / ".env").write_bytes(content)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_an_env_file_in_another_encoding_is_refused(
    encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Instead of being read as other names."""
    write_env_file("AFFILIATE_TAG=bücher\n".encode(encoding), monkeypatch, tmp_path)
    with pytest.raises(StartupError, match=r"^The file \.env is not text in UTF-8: [^.]*\.$"):
        read_settings()


def test_an_env_file_may_begin_with_a_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first line counts too."""
    write_env_file("ENVIRONMENT=prod\n".encode("utf-8-sig"), monkeypatch, tmp_path)
    assert read_settings().server.production


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('LOG_LEVEL="info\n', 1),
        ("ENVIRONMENT=dev\n\n# a comment\nnot a line\n", 4),
        ("\n\nLOG_LEVEL='info\nENVIRONMENT=dev\n", 3),
        ("LOG_LEVEL: info\n", 1),
        ('AFFILIATE_TAG="a" b\n', 1),
        ("=value\n", 1),
    ],
)
def test_a_line_of_the_env_file_that_is_no_setting_is_refused(
    content: str, line: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would be left out, and the server would run with another setting than the file seems to say."""
    write_env_file(content.encode(), monkeypatch, tmp_path)
    with pytest.raises(StartupError, match=rf"^Line {line} of the file \.env cannot be read: .*[^.]\.$"):
        read_settings()


def test_an_env_file_may_have_comments_exports_and_quoted_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What python-dotenv reads stays as it is."""
    content = '# a\n\nexport LOG_LEVEL=warn # b\nUNKNOWN\nEMPTY=\r\nAFFILIATE_TAG="a\nb"\n'
    write_env_file(content.encode(), monkeypatch, tmp_path)
    settings = read_settings()
    assert (settings.server.log_level, settings.assistant.affiliate_tag) == ("warning", "a\nb")


def test_an_env_file_that_is_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker makes one for a volume when its file is missing."""
    (tmp_path / ".env").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartupError, match=r"^\.env is a folder: "):
        read_settings()
