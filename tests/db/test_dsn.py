"""DSNs as they are written: TLS settings, parameters of hosters, and passwords that are not encoded."""

from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from shopassist.db.dsn import Host, apply_tls_settings, build_dsn, get_hosts, is_local_dsn, normalise_dsn
from shopassist.db.migrate import connect
from shopassist.errors import DatabaseAbsentError, StartupError
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


def test_the_home_folder_may_be_abbreviated(authority: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the path of the authorities' file."""
    monkeypatch.setenv("HOME", str(Path(authority).parent))
    config = DatabaseConfig(ssl_mode=SslMode.VERIFY_FULL, ssl_root_cert=f"~/{Path(authority).name}")
    assert apply_tls_settings(normalise_dsn(LINK), config).query["sslrootcert"] == authority


def test_space_around_a_link_is_no_part_of_it() -> None:
    """As copies from a page and lines of files have it. A line end within it is refused."""
    assert normalise_dsn(f" {LINK}\n") == normalise_dsn(LINK)
    with pytest.raises(StartupError, match="DATABASE_URL is not a link"):
        normalise_dsn(f"{LINK}\nsecond line")


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


HOSTERS = [
    "sslmode=require&channel_binding=require",
    "pgbouncer=true&connection_limit=1&pool_timeout=0",
    "schema=public&sslmode=prefer",
    "currentSchema=public&prepareThreshold=0",
    "gssencmode=disable&keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3",
    "application_name=shop@home&connect_timeout=10&tcp_user_timeout=1000",
    "target_session_attrs=read-write&load_balance_hosts=random",
    "client_encoding=latin1&supa=base-pooler.x&sslsni=1",
    "pool_max_conns=10&statement_cache_capacity=0&default_query_exec_mode=exec",
]


@pytest.mark.parametrize("parameters", HOSTERS)
async def test_links_of_hosters_work(parameters: str, server_url: str) -> None:
    """A real server would refuse parameters that are not its own; its TLS is another matter."""
    parameters = parameters.replace("sslmode=require&channel_binding=require", "channel_binding=prefer")
    async with connect(normalise_dsn(f"{server_url}?{parameters}")) as connection:
        assert await connection.fetchval("SELECT current_setting('client_encoding')") == "UTF8"


@pytest.mark.parametrize(
    "unknown",
    ["sslmod=require", "hostaddr=127.0.0.1", "require_auth=none", "foo=hidden", "jit=x", "options=project%3Dhidden"],
)
async def test_parameters_that_nobody_knows_are_named(unknown: str, server_url: str) -> None:
    """Without their value; and those of the server itself work."""
    async with connect(normalise_dsn(f"{server_url}?work_mem=9MB&pgbouncer=true")) as connection:
        assert await connection.fetchval("SHOW work_mem") == "9MB"
    name = unknown.partition("=")[0]
    with pytest.raises(StartupError, match=f"refuses the parameter {name} in DATABASE_URL: ") as refusal:
        async with connect(normalise_dsn(f"{server_url}?application_name=x&{unknown}")):
            pass
    assert "hidden" not in refusal.value.detail
    assert not isinstance(refusal.value, DatabaseAbsentError)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [("schema=shop", "schema shop"), ("currentSchema=shop", "schema shop"), ("gssencmode=require", "gssencmode")],
)
def test_parameters_that_cannot_be_honoured_are_refused(parameters: str, said: str) -> None:
    """Leaving them out would mean something else."""
    with pytest.raises(StartupError, match=f"^DATABASE_REPLICA_URL asks for .*{said}"):
        normalise_dsn(f"{LINK}?{parameters}", "DATABASE_REPLICA_URL")


@pytest.mark.parametrize(
    ("parameters", "mode"),
    [
        ("sslmode=REQUIRE", "require"),
        ("sslmode=verify_full", "verify-full"),
        ("sslmode=no-verify", "require"),
        ("ssl=true", "require"),
        ("ssl=0", "disable"),
        ("ssl=true&sslmode=verify-full", "verify-full"),
        ("sslmode=verify-full&ssl=true", "verify-full"),
        ("channel_binding=require", "require"),
        ("channel_binding=require&sslmode=verify-ca", "verify-ca"),
        ("sslmode=disable&sslmode=require", "require"),
        ("channel_binding=prefer", None),
    ],
)
def test_tls_modes_of_other_drivers_are_understood(parameters: str, mode: str | None) -> None:
    """Of two the stricter form counts, and of a parameter given twice the last."""
    assert normalise_dsn(f"{LINK}?{parameters}").query.get("ssl") == mode


PASSWORDS = ["hid@den", "hi@d/den", "hid@den@", "@hidden", "hi/d@den", "hi?d@den", "hi#dd@en", "hid@d?a=@n", "hi:d@den"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "after", ["@127.0.0.1:1/d", "@127.0.0.1:1,127.0.0.2:1/d", "@/d?host=/nowhere", "@[::1]:1/d?a=b"]
)
async def test_a_password_that_is_not_encoded_is_not_shown_in_part(password: str, after: str) -> None:
    """It is refused with the setting's name and what to write instead."""
    with pytest.raises(StartupError, match=r"The user or password in DATABASE_URL .*%40") as refusal:
        normalise_dsn(f"postgresql://me:{password}{after}")
    assert not [part for part in ("hi", "den", "127") if part in refusal.value.detail]


@pytest.mark.parametrize("password", ["hid%40den", "hi/d", "hi?d", "hi#d", "h:d", "100%", "h d", "[x]", "a&b=c", "a,b"])
def test_other_passwords_work_as_they_are(password: str) -> None:
    """Only an @ cannot be told from the end of the password."""
    url = normalise_dsn(f"postgresql://me:{password}@127.0.0.1:1/d?application_name=a@b")
    assert (url.password, get_hosts(url), url.database) == (unquote(password), [Host("127.0.0.1", 1)], "d")
