"""Derive a client's network, as a keyed hash, from its address and trusted proxies' headers."""

import hmac
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IPAddress = IPv4Address | IPv6Address
RawHeaders = Iterable[tuple[bytes, bytes]]

CACHED_CLIENTS = 4096
"""Clients whose networks need not be worked out again."""

X_FORWARDED_FOR, X_FORWARDED_PROTO, FORWARDED = b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"


class ClientNetworks:
    """Tells the network of a client, through the proxies that are trusted."""

    def __init__(
        self, key: bytes, trusted: Sequence[IPv4Network | IPv6Network] = (), loopback_counts: bool = True
    ) -> None:
        """Proxies in `trusted` are believed to say whom they ask for. Unless loopback counts it is no network."""
        self._key = key
        self._trusted = tuple(trusted)
        self._loopback_counts = loopback_counts
        self._known = lru_cache(CACHED_CLIENTS)(self._hashed)

    def of(self, peer: str | None, headers: RawHeaders) -> str | None:
        """The client's network by who is connected and what they say; None where nobody is to be counted."""
        if not self._trusted or not self._trusts(peer):
            return self._known(peer, b"", b"")
        return self._known(peer, join_header(headers, X_FORWARDED_FOR), join_header(headers, FORWARDED))

    def is_behind_tls(self, peer: str | None, headers: RawHeaders) -> bool:
        """Whether a trusted proxy says that the client came to it over TLS."""
        if not self._trusted or not self._trusts(peer):
            return False
        headers = list(headers)
        proto = join_header(headers, X_FORWARDED_PROTO).partition(b",")[0].strip().lower()
        said = [proto, *(value.lower() for value in parse_forwarded(join_header(headers, FORWARDED), b"proto"))]
        return b"https" in said

    def _hashed(self, peer: str | None, forwarded_for: bytes, forwarded: bytes) -> str | None:
        address = self._client(peer, forwarded_for, forwarded)
        if address is None:
            return hmac.digest(self._key, b"unknown", "sha256").hex()
        if address.is_loopback and not self._loopback_counts:
            return None
        network = address.packed[:8] if address.version == 6 else address.packed  # noqa: PLR2004 - the version's name
        return hmac.digest(self._key, network, "sha256").hex()

    def _client(self, peer: str | None, forwarded_for: bytes, forwarded: bytes) -> IPAddress | None:
        """The rightmost address that is no trusted proxy.

        A proxy adds to one of the two headers and lets the other pass as the client made it up: where both are there
        and disagree neither is believed.
        """
        connected = parse_address(peer or "")
        said = [forwarded_for.split(b",")] if forwarded_for else []
        said += [parse_forwarded(forwarded, b"for")] if forwarded else []
        clients = {self._rightmost(connected, hops) for hops in said}
        return clients.pop() if len(clients) == 1 else connected

    def _rightmost(self, connected: IPAddress | None, hops: Sequence[bytes]) -> IPAddress | None:
        client = connected
        for hop in reversed(hops):
            address = parse_address(hop.decode("latin-1"))
            if address is None:
                return client
            client = address
            if not self._is_proxy(address):
                return client
        return client

    def _trusts(self, peer: str | None) -> bool:
        address = parse_address(peer or "")
        return address is not None and self._is_proxy(address)

    def _is_proxy(self, address: IPAddress) -> bool:
        return any(address in network for network in self._trusted)


def join_header(headers: RawHeaders, wanted: bytes) -> bytes:
    """The values of all headers of that name, as one list (RFC 9110, section 5.3)."""
    return b",".join(value for name, value in headers if name == wanted)


def parse_forwarded(forwarded: bytes, wanted: bytes) -> list[bytes]:
    """What each element of a `Forwarded` header (RFC 7239) says of `wanted`; nothing where it says nothing.

    Commas part elements wherever they stand: a quote that a client left open cannot swallow what a proxy added.
    """
    values = []
    for element in forwarded.split(b","):
        pairs = (pair.partition(b"=") for pair in element.split(b";"))
        values.append(next((value.strip() for name, _, value in pairs if name.strip().lower() == wanted), b""))
    return values


def parse_address(text: str) -> IPAddress | None:
    """The address in `text`, which may be quoted and have a port; None for anything else."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
