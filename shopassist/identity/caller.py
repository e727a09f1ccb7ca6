"""Callers of the API: registered users, guests with their sessions, and the networks of both."""

import base64
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from secrets import token_urlsafe

from shopassist.errors import InvalidInputError, SessionRefusedError
from shopassist.text import USER_ID_LENGTH

IPAddress = IPv4Address | IPv6Address
RawHeaders = Iterable[tuple[bytes, bytes]]

SESSION_ID_PATTERN = re.compile(r"[!-{}~]{1,255}")
"""Visible ASCII except `|`, which common identity providers use in user ids."""

MISSING_VALUE = re.compile(
    r"""[\s"'`()\[\]{}]*+(undefined|null|none|nil|nan|true|false|[+-]?infinity)?[\s"'`()\[\]{}]*"""
    r"|\[object .*\]|<.*>|\$?\{+\s*[\w.]*\s*\}+|%s",
    re.IGNORECASE,
)
"""What clients send instead of a session id or key that they do not have: all of them would share it."""

SESSION_HEADER = "X-Session-ID"
SIGNED_PREFIX = "gs1."
"""Prefix of signed sessions, `gs1.<id>.<code>`. `gs1.<id>` is the guest's user id, which is not secret: only the code
gives access."""

ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """A registered user (verified token) or a guest (session id).

    `network` is the keyed hash of the client's network, None where networks are not counted.
    """

    user_id: str
    is_guest: bool
    scopes: frozenset[str] = field(default_factory=frozenset)
    email: str | None = None
    name: str | None = None
    picture: str | None = None
    network: str | None = None


def require_session_id(session_id: str, field: str = SESSION_HEADER) -> str:
    """Return the session id. Raises `InvalidInputError`, which names `field`, for the text of a missing value."""
    if MISSING_VALUE.fullmatch(session_id[: USER_ID_LENGTH + 1]):
        raise InvalidInputError(
            f"{field} is empty or the text of a missing value, such as undefined or null. Send the id of a session, "
            "which POST /api/guest issues, or leave it out."
        )
    return session_id


class GuestSessions:
    """Issues and verifies guest sessions."""

    def __init__(self, key: bytes, only_signed: bool = False) -> None:
        """With `only_signed`, accept only session ids that were signed with `key`."""
        self._key = key
        self._only_signed = only_signed

    def issue(self, network: str | None = None) -> tuple[Caller, str]:
        """Return a new guest of `network` and their session id, which does not expire."""
        user_id = SIGNED_PREFIX + token_urlsafe(ID_BYTES)
        return Caller(user_id, is_guest=True, network=network), f"{user_id}.{self._sign(user_id)}"

    def verify(self, session_id: str, network: str | None = None, field: str = SESSION_HEADER) -> Caller:
        """Return the guest of a session id.

        Raises `SessionRefusedError` for an id that is not accepted, and `InvalidInputError`, which names `field`, for
        one that is too long.
        """
        if session_id.startswith(SIGNED_PREFIX):
            user_id, _, code = session_id.rpartition(".")
            if not hmac.compare_digest(code.encode(), self._sign(user_id).encode()):
                raise SessionRefusedError
            return Caller(user_id, is_guest=True, network=network)
        if self._only_signed:
            raise SessionRefusedError
        if len(session_id) > USER_ID_LENGTH:
            raise InvalidInputError(f"{field} must have at most {USER_ID_LENGTH} characters.")
        if not SESSION_ID_PATTERN.fullmatch(session_id):
            raise SessionRefusedError
        return Caller(session_id, is_guest=True, network=network)

    def _sign(self, user_id: str) -> str:
        code = hmac.digest(self._key, user_id.encode(), "sha256")
        return base64.urlsafe_b64encode(code).decode().rstrip("=")


CACHED_CLIENTS = 4096
"""Size of the cache of client networks."""

X_FORWARDED_FOR, X_FORWARDED_PROTO, FORWARDED = b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"


class ClientNetworks:
    """Derives the network of a client behind trusted proxies."""

    def __init__(
        self, key: bytes, trusted: Sequence[IPv4Network | IPv6Network] = (), loopback_counts: bool = True
    ) -> None:
        """Accept the headers of proxies in `trusted`. Without `loopback_counts` loopback clients have no network."""
        self._key = key
        self._trusted = tuple(trusted)
        self._loopback_counts = loopback_counts
        self._hash_cached = lru_cache(CACHED_CLIENTS)(self._hash)

    def get_network(self, peer: str | None, headers: RawHeaders) -> str | None:
        """Return the keyed hash of the client's network; None where networks are not counted."""
        if not self._is_trusted(peer):
            return self._hash_cached(peer, b"", b"")
        return self._hash_cached(peer, join_header(headers, X_FORWARDED_FOR), join_header(headers, FORWARDED))

    def is_behind_tls(self, peer: str | None, headers: RawHeaders) -> bool:
        """Return whether a trusted proxy reports that the client used TLS."""
        if not self._is_trusted(peer):
            return False
        headers = list(headers)
        proto = join_header(headers, X_FORWARDED_PROTO).partition(b",")[0].strip().lower()
        reported = [proto, *(value.lower() for value in parse_forwarded(join_header(headers, FORWARDED), b"proto"))]
        return b"https" in reported

    def _hash(self, peer: str | None, forwarded_for: bytes, forwarded: bytes) -> str | None:
        address = self._get_client(peer, forwarded_for, forwarded)
        if address is None:
            return hmac.digest(self._key, b"unknown", "sha256").hex()
        if address.is_loopback and not self._loopback_counts:
            return None
        network = address.packed[:8] if address.version == 6 else address.packed  # noqa: PLR2004 - the version's name
        return hmac.digest(self._key, network, "sha256").hex()

    def _get_client(self, peer: str | None, forwarded_for: bytes, forwarded: bytes) -> IPAddress | None:
        """Return the rightmost address that is not a trusted proxy.

        A proxy extends one of the two headers and passes the other on as the client sent it: when both are present and
        disagree, neither is used.
        """
        connected = parse_address(peer or "")
        chains = [forwarded_for.split(b",")] if forwarded_for else []
        chains += [parse_forwarded(forwarded, b"for")] if forwarded else []
        clients = {self._get_rightmost(connected, hops) for hops in chains}
        return clients.pop() if len(clients) == 1 else connected

    def _get_rightmost(self, connected: IPAddress | None, hops: Sequence[bytes]) -> IPAddress | None:
        client = connected
        for hop in reversed(hops):
            address = parse_address(hop.decode("latin-1"))
            if address is None:
                return client
            client = address
            if not self._is_proxy(address):
                return client
        return client

    def _is_trusted(self, peer: str | None) -> bool:
        address = parse_address(peer or "") if self._trusted else None
        return address is not None and self._is_proxy(address)

    def _is_proxy(self, address: IPAddress) -> bool:
        return any(address in network for network in self._trusted)


def join_header(headers: RawHeaders, wanted: bytes) -> bytes:
    """Join the values of all headers named `wanted` into one list (RFC 9110, section 5.3)."""
    return b",".join(value for name, value in headers if name == wanted)


def parse_forwarded(forwarded: bytes, wanted: bytes) -> list[bytes]:
    """Return the value of `wanted` in each element of a `Forwarded` header (RFC 7239), or empty bytes.

    Every comma separates elements, even inside quotes: an unclosed quote of the client cannot hide what a proxy added.
    """
    values = []
    for element in forwarded.split(b","):
        pairs = (pair.partition(b"=") for pair in element.split(b";"))
        values.append(next((value.strip() for name, _, value in pairs if name.strip().lower() == wanted), b""))
    return values


def parse_address(text: str) -> IPAddress | None:
    """Parse an address, which may be quoted and have a port; return None for anything else."""
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
