"""Where a client comes from: which addresses are believed, and what becomes of them."""

from ipaddress import ip_network

import pytest

from shopassist.identity.caller import ClientNetworks

KEY = b"k" * 32
PROXY, CLIENT, OTHER = "10.0.0.1", "203.0.113.7", "198.51.100.9"
PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def network(peer: str | None, *headers: tuple[str, str], trusted: bool = True) -> str | None:
    """Return the network of a client behind a proxy that sends these headers."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return ClientNetworks(KEY, PROXIES if trusted else ()).get_network(peer, raw)


def of(address: str) -> str | None:
    """Return the network of a client that connects directly."""
    return network(address, trusted=False)


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([("X-Forwarded-For", CLIENT)], CLIENT),
        ([("X-Forwarded-For", f"{OTHER}, {CLIENT}")], CLIENT),
        ([("X-Forwarded-For", f"{OTHER}, {CLIENT}, 10.9.9.9")], CLIENT),
        ([("X-Forwarded-For", OTHER), ("X-Forwarded-For", CLIENT)], CLIENT),
        ([("X-Forwarded-For", f"{CLIENT}:51234")], CLIENT),
        ([("X-Forwarded-For", "[2001:db8::1]:443")], "2001:db8::1"),
        ([("X-Forwarded-For", f"::ffff:{CLIENT}")], CLIENT),
        ([("X-Forwarded-For", "10.2.2.2, 10.3.3.3")], "10.2.2.2"),
        ([("X-Forwarded-For", f"{CLIENT}, unknown")], PROXY),
        ([("X-Forwarded-For", f"{CLIENT}, ")], PROXY),
        ([("X-Forwarded-For", f"{OTHER}, nonsense, 10.4.4.4")], "10.4.4.4"),
        ([("Forwarded", f"for={CLIENT};proto=https")], CLIENT),
        ([("Forwarded", f'for="{OTHER}", for="[2001:db8::2]:1"')], "2001:db8::2"),
        ([("Forwarded", f'for="{OTHER}, for={CLIENT}')], CLIENT),
        ([("Forwarded", f"FOR={OTHER}, by=10.1.1.1")], PROXY),
        ([("Forwarded", "for=_hidden")], PROXY),
        ([("X-Forwarded-For", CLIENT), ("Forwarded", f"for={CLIENT}")], CLIENT),
        ([("X-Forwarded-For", CLIENT), ("Forwarded", f"for={OTHER}")], PROXY),
        ([], PROXY),
    ],
)
def test_a_trusted_proxy_says_whom_it_asks_for(headers: list[tuple[str, str]], client: str) -> None:
    """The rightmost address that is no proxy of ours; what a client made up to the left of it counts for nothing."""
    assert network(PROXY, *headers) == of(client)
    assert network("::ffff:10.0.0.1", *headers) == of(client)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_nobody_else_is_believed(header: str) -> None:
    """A client's own headers change nothing, whether there are trusted proxies or none."""
    forged = (header, OTHER if header != "Forwarded" else f"for={OTHER}")
    assert network(CLIENT, forged) == network(CLIENT, forged, trusted=False) == of(CLIENT)
    assert network(PROXY, forged, trusted=False) == of(PROXY)


def test_an_ipv6_network_is_a_64() -> None:
    """All addresses of a /64 are one client, those of the next are another; each IPv4 address is one."""
    assert of("2001:db8:1:2::1") == of("2001:db8:1:2:ffff::9")
    assert of("2001:db8:1:2::1") != of("2001:db8:1:3::1")
    assert of("203.0.113.7") != of("203.0.113.8")


def test_a_network_is_a_keyed_hash() -> None:
    """64 hex characters that another key would make differently."""
    mine, other = of(CLIENT), ClientNetworks(b"o" * 32).get_network(CLIENT, [])
    assert mine is not None
    assert len(mine) == 64
    assert bytes.fromhex(mine) != bytes.fromhex(other or "")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_counts_in_production_alone(address: str) -> None:
    """Outside production clients on this machine are not counted."""
    assert ClientNetworks(KEY, loopback_counts=False).get_network(address, []) is None
    assert ClientNetworks(KEY, loopback_counts=True).get_network(address, []) is not None


def test_whoever_has_no_address_is_counted_together() -> None:
    """A connection without an address is one network, not none."""
    assert network(None) == network("nonsense") is not None


@pytest.mark.parametrize(
    ("peer", "headers", "behind"),
    [
        (PROXY, [("X-Forwarded-Proto", "https")], True),
        (PROXY, [("X-Forwarded-Proto", "HTTPS, http")], True),
        (PROXY, [("Forwarded", f"for={CLIENT};proto=https")], True),
        (PROXY, [("X-Forwarded-Proto", "http")], False),
        (PROXY, [], False),
        (CLIENT, [("X-Forwarded-Proto", "https")], False),
    ],
)
def test_a_trusted_proxy_says_that_there_was_tls(peer: str, headers: list[tuple[str, str]], behind: bool) -> None:
    """Headers of other peers are ignored."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    assert ClientNetworks(KEY, PROXIES).is_behind_tls(peer, raw) is behind
