"""Who somebody is, for whoever has the key only: user ids under a keyed hash."""

import hashlib
import hmac

from shopassist.identity.secret import derived_key
from shopassist.settings import Settings

PURPOSE = "erased subjects"


class SubjectHash:
    """Hashes user ids (HMAC with SHA-256)."""

    def __init__(self, settings: Settings) -> None:
        """The key is made when it is first needed. Raises `StartupError` then when there is no secret."""
        self._settings = settings
        self._key = b""

    def __call__(self, user_id: str) -> str:
        """64 hex characters."""
        if not self._key:
            self._key = derived_key(self._settings, PURPOSE)
        return hmac.digest(self._key, user_id.encode(), hashlib.sha256).hex()

    @property
    def fingerprint(self) -> str:
        """What tells this key from another: hashes under another key lead to nobody. 16 hex characters."""
        return self("\x00fingerprint")[:16]
