"""How an answer is kept in Redis: signed, so that what anybody else put there, or damaged, is none."""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

FORMAT = "shopassist:1"
"""What every key begins with; another format of entries has another number."""

MOST_BYTES = 128 * 1024
"""A larger answer is not shared, and whatever is larger is no answer."""

SIGNATURE_BYTES = 32
TIME_BYTES = 8
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer, valid up to and including `expires_at`."""

    result: dict[str, Any]
    expires_at: datetime


class Entries:
    """Names and contents of what is kept. Servers that share a secret read each other's, and nobody else's."""

    def __init__(self, key: bytes) -> None:
        """`key` signs."""
        self._key = key
        self._prefix = f"{FORMAT}:{hashlib.sha256(key).hexdigest()[:12]}"

    def name(self, query_hash: str, epoch: int) -> str:
        """Where the answer is kept while the cache has been cleared `epoch` times."""
        return f"{self._prefix}:{epoch}:{query_hash}"

    def mark(self, epoch: int) -> str:
        """What is there once the cache of `epoch` was cleared."""
        return f"{self._prefix}:{epoch}:cleared"

    def packed(self, name: str, entry: Entry) -> bytes | None:
        """What is kept under `name`, or None for an answer that is too large."""
        body = json.dumps(entry.result, ensure_ascii=False, separators=(",", ":")).encode()
        time = (entry.expires_at - BEGINNING) // MICROSECOND
        signed = time.to_bytes(TIME_BYTES, "big") + body
        content = self._signature(name, signed) + signed
        return content if len(content) <= MOST_BYTES else None

    def unpacked(self, name: str, content: bytes) -> Entry | None:
        """The answer, if it is one of ours and was kept under this very name."""
        signature, signed = content[:SIGNATURE_BYTES], content[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(name, signed)):
            return None
        expires_at = BEGINNING + MICROSECOND * int.from_bytes(signed[:TIME_BYTES], "big")
        return Entry(json.loads(signed[TIME_BYTES:]), expires_at)

    def _signature(self, name: str, signed: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + signed, "sha256")
