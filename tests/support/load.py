"""Load at a steady rate, independent of earlier responses, with a record of every request."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RATE = int(os.environ.get("FAULT_RATE", "200"))
"""Requests a second."""

PATIENCE_SECONDS = 15.0
"""Time after which the deployed client gives up."""

IDLE_SECONDS = 2.0
"""Maximum idle time of a connection; the server closes it after five seconds."""

KNOWN = 20
"""Questions and guests that are repeated."""


class Kind(StrEnum):
    """Kind of request."""

    NEW = "new question"
    CACHED = "cached question"
    CREDITS = "credits"
    HISTORY = "history"
    CONSENT = "consent"
    CHANGE = "change of consent"


MIX = (
    Kind.NEW, Kind.CACHED, Kind.CREDITS, Kind.CACHED, Kind.HISTORY,
    Kind.NEW, Kind.CREDITS, Kind.CACHED, Kind.CREDITS, Kind.CONSENT,
)  # fmt: skip
CHANGED_AFTER = RATE
"""Requests between a consent and its change; every other consent request changes an existing one."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One request: its user, start time (monotonic seconds), duration, and the response; status 0 means none."""

    kind: Kind
    number: int
    who: str
    began: float
    seconds: float
    status: int
    retry_after: bool
    body: Any

    @property
    def ended(self) -> float:
        """Return when the response was received."""
        return self.began + self.seconds

    @property
    def answered(self) -> bool:
        """Return whether it succeeded."""
        return self.status == 200

    @property
    def failed(self) -> bool:
        """Return whether there was no response, or none that helps."""
        return not (self.answered or self.is_no_consent)

    @property
    def is_wrong(self) -> bool:
        """Return whether it failed in a way that is not allowed."""
        return self.failed and not (self.status == 503 and self.retry_after)

    @property
    def is_no_consent(self) -> bool:
        """Return whether it changed a consent that had been refused."""
        return self.kind is Kind.CHANGE and self.status == 404

    @property
    def charged(self) -> bool:
        """Return whether a question was answered and charged."""
        return self.answered and self.body["metadata"]["charged"] == 1


def question_of(number: int) -> str:
    """Return a new question."""
    return f"phone number {number}"


def marketing_of(number: int) -> bool:
    """Return the body of a registered user's marketing decision; a change reverses it."""
    return bool(number // len(MIX) % 4 // 2)


class Load:
    """Sends requests to one server, on as many connections as necessary."""

    def __init__(self, port: int, token: Callable[[str], str], rate: int = RATE) -> None:
        """`token` creates a registered user's access token; `rate` is in requests a second."""
        self.heard: list[Heard] = []
        self._rate = rate
        self._port = port
        self._token = token
        self._number = 0
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests for the length of the block, then wait for all responses."""
        stop = asyncio.Event()
        pacing = asyncio.create_task(self._pace(stop))
        try:
            yield
        finally:
            stop.set()
            await pacing

    def _idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._kept:
            reader, writer, idle_since = self._kept.pop()
            if time.monotonic() - idle_since < IDLE_SECONDS and not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def hang_up(self) -> None:
        """Close idle connections, since one that is garbage collected warns."""
        while self._kept:
            _, writer, _ = self._kept.pop()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def know(self) -> None:
        """Create all accounts and cache all questions that are to be cached."""
        for number in range(KNOWN):
            await self.send(Kind.CACHED, number)

    async def again(self, number: int) -> Heard:
        """Repeat a new question."""
        return await self.send(Kind.NEW, number)

    async def ask(self, who: str, question: str) -> Heard:
        """Ask a question that is not recorded in `heard`."""
        return await self._ask(Kind.NEW, 0, who, "POST /api/query", {"query": question})

    async def _pace(self, stop: asyncio.Event) -> None:
        began, first = time.monotonic(), self._number
        async with asyncio.TaskGroup() as sending:
            while not stop.is_set():
                sending.create_task(self.send(*self._next()))
                await asyncio.sleep(began + (self._number - first) / self._rate - time.monotonic())

    def _next(self) -> tuple[Kind, int]:
        number = self._number
        self._number += 1
        kind = MIX[number % len(MIX)]
        if kind is Kind.CONSENT and number // len(MIX) % 2 and number > CHANGED_AFTER:
            return Kind.CHANGE, number - CHANGED_AFTER - len(MIX)
        return kind, number

    async def send(self, kind: Kind, number: int) -> Heard:
        """Send a request and record it in `heard`."""
        who, line, body = self._request(kind, number)
        heard = await self._ask(kind, number, who, line, body)
        self.heard.append(heard)
        return heard

    def _request(self, kind: Kind, number: int) -> tuple[str, str, Any]:
        """Choose user and request."""
        known = f"known-{number % KNOWN}"
        match kind:
            case Kind.NEW:
                return f"asks-{number}", "POST /api/query", {"query": question_of(number)}
            case Kind.CACHED:
                return known, "POST /api/query", {"query": f"known phone {number % KNOWN}"}
            case Kind.CREDITS:
                return known, "GET /api/user/credits", None
            case Kind.HISTORY:
                return known, "GET /api/user/credits/transactions", None
            case Kind.CONSENT:
                return f"auth0|{number}", "POST /api/consent", {"marketing_consent": marketing_of(number)}
            case Kind.CHANGE:
                return f"auth0|{number}", "PUT /api/consent/me", {"marketing_consent": not marketing_of(number)}

    async def _ask(self, kind: Kind, number: int, who: str, line: str, body: Any) -> Heard:
        identity = f"Authorization: Bearer {self._token(who)}" if who.startswith("auth0|") else f"X-Session-ID: {who}"
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{line} HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n{identity}\r\n"
        sent = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                status, retry_after, found = await self._exchange(sent)
        except (OSError, EOFError, ValueError):
            status, retry_after, found = 0, False, None
        return Heard(kind, number, who, began, time.monotonic() - began, status, retry_after, found)

    async def _exchange(self, sent: bytes) -> tuple[int, bool, Any]:
        """Return status, presence of `Retry-After`, and JSON. A connection is kept after a response."""
        reader, writer = self._idle() or (await asyncio.open_connection("127.0.0.1", self._port))
        try:
            writer.write(sent)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
        except BaseException:
            writer.close()
            raise
        self._kept.append((reader, writer, time.monotonic()))
        return int(head.split(b" ", 2)[1]), b"\r\nretry-after:" in head, json.loads(body)
