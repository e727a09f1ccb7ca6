"""Server processes of the product with an assistant that is scripted by the question.

`python -m tests.support.servers` uses the environment as `shopassist serve` does. The first word of a question is a
command: `slow 0.5 …` is answered after as many seconds; `hang …` hangs when first asked; `late …` is answered and paid
for, but its first reply is not sent; `fail …` and `crash …` raise an error that contains the question, in the assistant
and in the query service; anything else is answered at once. Each call of the assistant adds a line to `asked` in the
folder of `TEST_FOLDER`, and each question that hangs creates a file there first. The clock of the process is wrong by
`TEST_CLOCK_MINUTES`.
"""

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import time_machine

from containers import Container
from shopassist.asgi import run_server
from shopassist.identity.rate_limits import RequestQuota
from shopassist.logging import configure_logging
from shopassist.query.models import Answer, ConversationContext, QueryReply, QueryRequest, Recommendation
from shopassist.query.service import QueryService, WaitForDisconnect
from shopassist.settings import Settings, read_settings

PROJECT = Path(__file__).resolve().parents[2]
ANSWER = Answer(
    products=[Recommendation(title="Phone", price=10999, currency="INR", link="https://www.amazon.in/s?k=phone")],
    recommendations_summary="One phone fits.",
)
LONG = 600.0


def mark(folder: Path, query: str) -> Path:
    """Return the marker file of a question that hangs."""
    return folder / hashlib.sha256(query.encode()).hexdigest()


def is_first(query: str) -> bool:
    """Create the question's marker file; return False if it existed."""
    with contextlib.suppress(FileExistsError):
        mark(Path(os.environ["TEST_FOLDER"]), query).touch(exist_ok=False)
        return True
    return False


class ScriptedAssistant:
    """Executes the command in the question."""

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """Answer."""
        with (Path(os.environ["TEST_FOLDER"]) / "asked").open("a") as asked:
            asked.write(f"{query}\n")
        word, number, *_ = [*query.split(), ""]
        if word == "slow":
            await asyncio.sleep(float(number))
        if word == "fail":
            raise RuntimeError(query)
        if word == "hang" and is_first(query):
            await asyncio.sleep(LONG)
        return ANSWER


class LateReplies(QueryService):
    """Settles and then does not reply."""

    async def answer(
        self,
        user_id: str,
        is_guest: bool,
        request: QueryRequest,
        idempotency_key: str | None = None,
        wait_for_disconnect: WaitForDisconnect | None = None,
        network: str | None = None,
        quota: RequestQuota | None = None,
    ) -> QueryReply:
        """Answer, unless the question commands otherwise."""
        if request.query.startswith("crash"):
            raise RuntimeError(f"{user_id} {request.query}")
        reply = await super().answer(user_id, is_guest, request, idempotency_key, wait_for_disconnect, network, quota)
        if request.query.startswith("late") and is_first(request.query):
            await asyncio.sleep(LONG)
        return reply


def build_container(settings: Settings) -> Container:
    """Build the product's container with these two replacements."""
    container = Container(settings=settings)
    container.assistant.override(ScriptedAssistant())
    container.query_service.set_provides(LateReplies)
    return container


class TestServer:
    """A server process and a client for it."""

    __test__ = False
    arguments: ClassVar[tuple[str, ...]] = ("-m", "tests.support.servers")

    def __init__(self, folder: Path, database_url: str, **environment: str) -> None:
        """Start the process; its log is a file in `folder`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.log = folder / f"server-{self.port}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                env={
                    **os.environ,
                    "PYTHONPATH": str(PROJECT),
                    "DATABASE_URL": database_url,
                    "API_PORT": str(self.port),
                    "SAMPLE_CATALOGUE": "false",
                    "TEST_FOLDER": str(folder),
                    "RATE_LIMIT_QUESTIONS_PER_MINUTE": "1000000",
                    "RATE_LIMIT_READS_PER_MINUTE": "1000000",
                    **environment,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def wait_until_ready(self, seconds: float = 80) -> "TestServer":
        """Wait for the first answer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.call("GET", "/health")[0] == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON and headers of a response. Raises `OSError` or `HTTPException` if there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, json.load(answer), {key.lower(): value for key, value in answer.getheaders()}
        finally:
            connection.close()

    def exchange(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str], timeout: float = 60
    ) -> tuple[int, str]:
        """Return status, and headers and body as text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return answer.status, f"{answer.headers}{answer.read().decode()}"
        finally:
            connection.close()

    def ask(self, query: str, guest: str, key: str | None = None) -> tuple[int, Any, dict[str, str]]:
        """Ask a question as a guest."""
        headers = {"X-Session-ID": guest, **({"Idempotency-Key": key} if key else {})}
        return self.call("POST", "/api/query", {"query": query}, headers)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.process.wait(30)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # as `shopassist.__main__` does
        signal.signal(number, lambda *_: sys.exit(0))
    wrong_by = timedelta(minutes=float(os.environ.get("TEST_CLOCK_MINUTES", "0")))
    time_machine.travel(datetime.now(UTC) + wrong_by).start()
    served = read_settings()
    configure_logging(served.server.log_level)
    run_server(served, build_container)
