"""The authenticated caller of a request."""

import hashlib
import hmac
from dataclasses import dataclass, field

from shopassist.identity.key_derivation import derive_key
from shopassist.settings import Settings

USER_HASH_PURPOSE = "erased subjects"


class UserHasher:
    """Hashes user ids (HMAC with SHA-256)."""

    def __init__(self, settings: Settings) -> None:
        """The key is made when it is first needed. Raises `StartupError` then when there is no secret."""
        self._settings = settings
        self._key = b""

    def __call__(self, user_id: str) -> str:
        """64 hex characters."""
        if not self._key:
            self._key = derive_key(self._settings, USER_HASH_PURPOSE)
        return hmac.digest(self._key, user_id.encode(), hashlib.sha256).hex()

    @property
    def fingerprint(self) -> str:
        """What tells this key from another: hashes under another key lead to nobody. 16 hex characters."""
        return self("\x00fingerprint")[:16]


@dataclass(frozen=True, slots=True)
class Caller:
    """A registered user (a verified token) or a guest (a session id).

    `network` is the keyed hash of where they come from, None where nobody is counted.
    """

    user_id: str
    is_guest: bool
    scopes: frozenset[str] = field(default_factory=frozenset)
    email: str | None = None
    name: str | None = None
    picture: str | None = None
    network: str | None = None
