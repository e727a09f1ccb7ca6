"""Where a request comes from: the client's network, as far as what is said of it can be believed.

A network is known by a keyed hash alone: of an IPv4 address, or of the /64 that an IPv6 address is in.
"""

import hmac
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Headers = Iterable[tuple[bytes, bytes]]

REMEMBERED = 4096
"""Clients whose networks need not be worked out again."""

FOR, PROTO, FORWARDED = b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"


class Networks:
    """Tells the network of a client, through the proxies that are trusted."""

    def __init__(
        self, key: bytes, trusted: Sequence[IPv4Network | IPv6Network] = (), loopback_counts: bool = True
    ) -> None:
        """Proxies in `trusted` are believed to say whom they ask for. Unless loopback counts it is no network."""
        self._key = key
        self._trusted = tuple(trusted)
        self._loopback_counts = loopback_counts
        self._known = lru_cache(REMEMBERED)(self._hashed)

    def of(self, peer: str | None, headers: Headers) -> str | None:
        """The client's network by who is connected and what they say; None where nobody is to be counted."""
        if not self._trusted or not self._trusts(peer):
            return self._known(peer, b"", b"")
        return self._known(peer, joined(headers, FOR), joined(headers, FORWARDED))

    def is_behind_tls(self, peer: str | None, headers: Headers) -> bool:
        """Whether a trusted proxy says that the client came to it over TLS."""
        if not self._trusted or not self._trusts(peer):
            return False
        headers = list(headers)
        proto = joined(headers, PROTO).partition(b",")[0].strip().lower()
        said = [proto, *(value.lower() for value in parameters(joined(headers, FORWARDED), b"proto"))]
        return b"https" in said

    def _hashed(self, peer: str | None, forwarded_for: bytes, forwarded: bytes) -> str | None:
        address = self._client(peer, forwarded_for, forwarded)
        if address is None:
            return hmac.digest(self._key, b"unknown", "sha256").hex()
        if address.is_loopback and not self._loopback_counts:
            return None
        network = address.packed[:8] if address.version == 6 else address.packed  # noqa: PLR2004 - the version's name
        return hmac.digest(self._key, network, "sha256").hex()

    def _client(self, peer: str | None, forwarded_for: bytes, forwarded: bytes) -> Address | None:
        """The rightmost address that is no trusted proxy.

        A proxy adds to one of the two headers and lets the other pass as the client made it up: where both are there
        and disagree neither is believed.
        """
        connected = parsed(peer or "")
        said = [forwarded_for.split(b",")] if forwarded_for else []
        said += [parameters(forwarded, b"for")] if forwarded else []
        clients = {self._rightmost(connected, hops) for hops in said}
        return clients.pop() if len(clients) == 1 else connected

    def _rightmost(self, connected: Address | None, hops: Sequence[bytes]) -> Address | None:
        client = connected
        for hop in reversed(hops):
            address = parsed(hop.decode("latin-1"))
            if address is None:
                return client
            client = address
            if not self._is_proxy(address):
                return client
        return client

    def _trusts(self, peer: str | None) -> bool:
        address = parsed(peer or "")
        return address is not None and self._is_proxy(address)

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def joined(headers: Headers, wanted: bytes) -> bytes:
    """The values of all headers of that name, as one list (RFC 9110, section 5.3)."""
    return b",".join(value for name, value in headers if name == wanted)


def parameters(forwarded: bytes, wanted: bytes) -> list[bytes]:
    """What each element of a `Forwarded` header (RFC 7239) says of `wanted`; nothing where it says nothing.

    Commas part elements wherever they stand: a quote that a client left open cannot swallow what a proxy added.
    """
    values = []
    for element in forwarded.split(b","):
        pairs = (pair.partition(b"=") for pair in element.split(b";"))
        values.append(next((value.strip() for name, _, value in pairs if name.strip().lower() == wanted), b""))
    return values


def parsed(text: str) -> Address | None:
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
