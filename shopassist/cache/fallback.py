"""In-process copies of recent answers, served while the database is unavailable."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from cachetools import LRUCache

from shopassist.cache.models import StoredAnswer
from shopassist.query.models import Answer

REFRESH_SECONDS = 60.0
"""How often an answer that the database keeps giving is taken anew, since another may have come in its place."""

ENTRY_OVERHEAD_BYTES = 600
"""What an entry takes beside its answer."""


@dataclass(frozen=True, slots=True)
class StaleEntry:
    """An answer as JSON; until when it may be served, and from when it is to be taken anew (monotonic seconds)."""

    body: bytes
    serve_until: float
    confirm_from: float


class StaleAnswers:
    """Answers by the hash of their question, the least recently used given up first.

    Nobody but whoever cannot reach the database reads them: what is valid, the database decides. An answer is the same
    for everyone, and nothing of who asked is kept. `epoch` is how often the cache had been cleared when the database
    was last asked: what was read before a clearing is not kept after it.
    """

    def __init__(
        self,
        most_answers: int,
        most_bytes: int,
        longest: timedelta,
        validity: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """No answer older than `longest` is served; one that the database gives is `validity` old at the most."""
        self.epoch = 0
        self._most_answers = most_answers
        self._longest = longest.total_seconds()
        self._validity = validity.total_seconds()
        self._monotonic = monotonic
        self._entries: LRUCache[str, StaleEntry] = LRUCache(
            most_bytes, lambda entry: len(entry.body) + ENTRY_OVERHEAD_BYTES
        )
        self._served = 0

    def keep_new(self, answer: StoredAnswer, epoch: int) -> None:
        """Keep an answer that was just stored in the cache of `epoch`."""
        self._keep(answer.query_hash, answer.result, epoch, 0.0)

    def keep_found(self, query_hash: str, answer: Answer, epoch: int) -> None:
        """Keep an answer that the database gave while `epoch` was the current one."""
        entry = self._entries.get(query_hash)
        if entry is None or entry.confirm_from <= self._monotonic():
            self._keep(query_hash, answer.model_dump_json(), epoch, self._validity)

    def find(self, query_hash: str) -> Answer | None:
        """The answer, if it is here and not too old."""
        entry = self._entries.get(query_hash)
        if entry is None:
            return None
        if entry.serve_until < self._monotonic():
            del self._entries[query_hash]
            return None
        self._served += 1
        return Answer.model_validate_json(entry.body)

    def follow(self, epoch: int) -> None:
        """Give up every answer if the cache was cleared since `epoch` was last told."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._entries.clear()

    def figures(self) -> dict[str, int]:
        """Answers kept, their size in bytes, and how many were served from here."""
        return {"answers": len(self._entries), "bytes": int(self._entries.currsize), "served": self._served}

    def _keep(self, query_hash: str, answer: str, epoch: int, age: float) -> None:
        if epoch != self.epoch or not self._most_answers:
            return
        now = self._monotonic()
        body = answer.encode()
        serve_until = now + self._longest - age
        previous = self._entries.get(query_hash)
        if previous is not None and previous.body == body:
            serve_until = max(serve_until, previous.serve_until)
        if serve_until < now or len(body) + ENTRY_OVERHEAD_BYTES > self._entries.maxsize:
            self._entries.pop(query_hash, None)
            return
        self._entries[query_hash] = StaleEntry(body, serve_until, now + REFRESH_SECONDS)
        while len(self._entries) > self._most_answers:
            self._entries.popitem()
