"""Callers of the API: registered users, and guests with their sessions."""

import base64
import hmac
import re
from dataclasses import dataclass, field
from secrets import token_bytes

from shopassist.errors import InvalidInputError, SessionRefusedError
from shopassist.text import USER_ID_LENGTH

SESSION_ID_PATTERN = re.compile(r"[!-{}~]{1,255}")
"""Visible ASCII except `|`, which common identity providers use in user ids."""

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


class GuestSessions:
    """Issues and verifies guest sessions."""

    def __init__(self, key: bytes, only_signed: bool = False) -> None:
        """With `only_signed`, accept only session ids that were signed with `key`."""
        self._key = key
        self._only_signed = only_signed

    def issue(self, network: str | None = None) -> tuple[Caller, str]:
        """Return a new guest of `network` and their session id, which does not expire."""
        user_id = SIGNED_PREFIX + encode_base64url(token_bytes(ID_BYTES))
        return Caller(user_id, is_guest=True, network=network), f"{user_id}.{self._sign(user_id)}"

    def verify(self, session_id: str, network: str | None = None) -> Caller:
        """Return the guest of a session id.

        Raises `SessionRefusedError` for an id that is not accepted, and `InvalidInputError` for one that is too long.
        """
        if session_id.startswith(SIGNED_PREFIX):
            user_id, _, code = session_id.rpartition(".")
            if not hmac.compare_digest(code.encode(), self._sign(user_id).encode()):
                raise SessionRefusedError
            return Caller(user_id, is_guest=True, network=network)
        if self._only_signed:
            raise SessionRefusedError
        if len(session_id) > USER_ID_LENGTH:
            raise InvalidInputError(f"X-Session-ID must have at most {USER_ID_LENGTH} characters.")
        if not SESSION_ID_PATTERN.fullmatch(session_id):
            raise SessionRefusedError
        return Caller(session_id, is_guest=True, network=network)

    def _sign(self, user_id: str) -> str:
        return encode_base64url(hmac.digest(self._key, user_id.encode(), "sha256"))


def encode_base64url(raw: bytes) -> str:
    """Return `raw` in URL-safe Base64 without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
