"""Issue and verify guest sessions."""

import base64
import hmac
import re
from secrets import token_bytes

from shopassist.errors import InvalidInputError, SessionRefusedError
from shopassist.identity.caller import Caller
from shopassist.text import USER_ID_LENGTH

SESSION_ID_PATTERN = re.compile(r"[!-{}~]{1,255}")
"""Visible ASCII but the bar, which joins connection and user in the subjects of common identity providers."""

SIGNED_PREFIX = "gs1."
"""How every signed session begins, and no other that is believed: `gs1.<id>.<code>`, of which `gs1.<id>` is the
guest's user id. It may be shown to anybody; only who has the code can use it."""

ID_BYTES = 16


class GuestSessions:
    """Signs sessions, and believes them."""

    def __init__(self, key: bytes, only_signed: bool = False) -> None:
        """With `only_signed` no session id is believed that `key` did not sign."""
        self._key = key
        self._only_signed = only_signed

    def issue(self, network: str | None = None) -> tuple[Caller, str]:
        """A new guest, who comes from `network`, and their session id.

        It does not expire: a guest's credits do not come back either.
        """
        user_id = SIGNED_PREFIX + encode_base64url(token_bytes(ID_BYTES))
        return Caller(user_id, is_guest=True, network=network), f"{user_id}.{self._code(user_id)}"

    def caller(self, session_id: str, network: str | None = None) -> Caller:
        """The guest of a session id, who comes from `network`.

        Raises `SessionRefusedError` when nobody can have that id, and `InvalidInputError` for what is too long for one.
        """
        if session_id.startswith(SIGNED_PREFIX):
            user_id, _, code = session_id.rpartition(".")
            if not hmac.compare_digest(code.encode(), self._code(user_id).encode()):
                raise SessionRefusedError
            return Caller(user_id, is_guest=True, network=network)
        if self._only_signed:
            raise SessionRefusedError
        if len(session_id) > USER_ID_LENGTH:
            raise InvalidInputError(f"X-Session-ID must have {USER_ID_LENGTH} characters at the most.")
        if not SESSION_ID_PATTERN.fullmatch(session_id):
            raise SessionRefusedError
        return Caller(session_id, is_guest=True, network=network)

    def _code(self, user_id: str) -> str:
        return encode_base64url(hmac.digest(self._key, user_id.encode(), "sha256"))


def encode_base64url(raw: bytes) -> str:
    """`raw` in letters, digits, `-` and `_`."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
