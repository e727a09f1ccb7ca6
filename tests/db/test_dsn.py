"""TLS settings: in which places they may be given, and which are refused."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from shopassist.db.dsn import apply_tls_settings, build_dsn, is_local_dsn, normalise_dsn
from shopassist.errors import StartupError
from shopassist.settings import ServerSettings, Settings
from shopassist.settings.database import DatabaseConfig, SslMode
from tests.support.certificates import Authority

LINK = "postgresql://user:hidden@db.example/shop"


@pytest.fixture
def authority(tmp_path: Path) -> str:
    """Write the file of a certificate authority."""
    file = tmp_path / "root.crt"
    file.write_bytes(Authority("A").certificate.public_bytes(Encoding.PEM))
    assert x509.load_pem_x509_certificate(file.read_bytes())
    return str(file)


@pytest.mark.parametrize("mode", SslMode)
@pytest.mark.parametrize("place", ["setting", "link", "both"])
def test_a_mode_may_be_said_in_either_place(mode: SslMode, place: str, authority: str) -> None:
    """Both places may be used if they agree."""
    config = DatabaseConfig(ssl_mode=None if place == "link" else mode, ssl_root_cert=authority)
    link = LINK if place == "setting" else f"{LINK}?sslmode={mode}"
    query = apply_tls_settings(normalise_dsn(link), config).query
    assert (query["ssl"], query["sslrootcert"]) == (mode, authority)


def test_what_nobody_says_is_left_open() -> None:
    """The default is libpq's `prefer`, without a certificate."""
    assert apply_tls_settings(normalise_dsn(LINK), DatabaseConfig()).query == {}


@pytest.mark.parametrize(
    ("parameters", "config", "said"),
    [
        ("?sslmode=require", DatabaseConfig(ssl_mode=SslMode.VERIFY_FULL), "DB_SSL_MODE and sslmode in DATABASE_URL"),
        ("?sslrootcert=/a", DatabaseConfig(ssl_root_cert="/b"), "DB_SSL_ROOT_CERT and sslrootcert in DATABASE_URL"),
        ("?sslmode=secure", DatabaseConfig(), "sslmode in DATABASE_URL must be one of"),
        ("", DatabaseConfig(ssl_mode=SslMode.VERIFY_FULL), "DB_SSL_ROOT_CERT is not set"),
        ("", DatabaseConfig(ssl_mode=SslMode.REQUIRE, ssl_root_cert="/nowhere"), "No such file"),
        ("", DatabaseConfig(ssl_mode=SslMode.REQUIRE, ssl_root_cert=__file__), "holds no certificate"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    parameters: str, config: DatabaseConfig, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message is one sentence without the password."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StartupError, match=said) as refusal:
        apply_tls_settings(normalise_dsn(LINK + parameters), config)
    assert "hidden" not in str(refusal.value)


def test_the_authorities_of_the_machine_may_be_meant() -> None:
    """`system` is for databases with certificates of a public authority."""
    config = DatabaseConfig(ssl_mode=SslMode.VERIFY_FULL, ssl_root_cert="system")
    assert Path(str(apply_tls_settings(normalise_dsn(LINK), config).query["sslrootcert"])).is_file()


def test_production_says_how_the_way_to_another_machine_is_protected() -> None:
    """Any explicit mode is accepted; libpq's default could be downgraded by an attacker on the network."""

    def linked(link: str, mode: SslMode | None = None, environment: str = "production") -> str:
        config = DatabaseConfig(ssl_mode=mode)
        settings = Settings(database=config, server=ServerSettings(environment=environment))
        return build_dsn(settings, SecretStr(link)).render_as_string()

    with pytest.raises(StartupError, match="DB_SSL_MODE"):
        linked(LINK)
    assert linked(LINK, SslMode.DISABLE)
    assert linked(f"{LINK}?sslmode=prefer")
    assert linked(LINK, environment="development")
    assert linked("postgresql://user@127.0.0.1/shop")


@pytest.mark.parametrize(
    ("link", "local"),
    [
        ("postgresql://u@127.0.0.1/d", True),
        ("postgresql://u@[::1]:5432/d", True),
        ("postgresql://u@localhost/d", True),
        ("postgresql:///d?host=/var/run/postgresql", True),
        ("postgresql:///d", True),
        ("postgresql://u@10.0.0.1/d", False),
        ("postgresql://u@localhost.evil.example/d", False),
        ("postgresql:///d?host=127.0.0.1,db.example", False),
    ],
)
def test_links_that_stay_on_this_machine_are_known(link: str, local: bool) -> None:
    """Loopback addresses and sockets, and nothing that looks like them."""
    assert is_local_dsn(normalise_dsn(link)) is local
