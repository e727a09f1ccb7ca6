"""Traces that a real server sends with OTLP; they contain no user input."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.servers import PROJECT, TestServer

pytestmark = pytest.mark.timeout(400)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Receiver:
    """An OTLP endpoint on loopback that stores requests."""

    def __init__(self) -> None:
        """Start listening."""
        self.requests: list[ExportTraceServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> list[Span]:
        """Return all spans received so far."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def attributes(span: Span) -> dict[str, str | int]:
    """Return the attributes of a span."""
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


def test_a_question_is_one_trace(tmp_path: Path, database_url: str, receiver: Receiver) -> None:
    """Request, statements and assistant are in the client's trace; the log has its id, and spans no personal data."""
    server = TestServer(tmp_path, database_url, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.address).wait_until_ready(180)
    try:
        headers = {"X-Session-ID": "g2wsht", "traceparent": PARENT, "X-Request-ID": "request-1"}
        assert server.call("POST", "/api/query", {"query": "something personal"}, headers)[0] == 200
        assert server.call("GET", "/api/user/credits/transactions", headers=headers)[0] == 200
    finally:
        assert server.stop() == 0
    trace = bytes.fromhex(PARENT.split("-")[1])
    spans = [span for span in receiver.spans() if span.trace_id == trace]
    [question] = [span for span in spans if span.name == "POST /api/query"]
    assert (question.kind, question.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, PARENT.split("-")[2])
    assert attributes(question) == {
        "http.request.method": "POST",
        "http.route": "/api/query",
        "http.response.status_code": 200,
        "shopassist.request_id": "request-1",
    }
    [assistant] = [span for span in spans if span.name == "assistant"]
    statements = [span for span in spans if "db.query.text" in attributes(span)]
    assert {span.kind for span in statements} == {Span.SPAN_KIND_CLIENT}
    texts = "\n".join(str(attributes(span)["db.query.text"]) for span in statements)
    for table in ("query_cache", "user_credits", "credit_holds", "credit_transactions"):
        assert table in texts
    ids = {span.span_id for span in spans}
    for span in (assistant, *statements):
        assert span.parent_span_id in ids
        assert span.start_time_unix_nano < span.end_time_unix_nano
    sent = b"".join(request.SerializeToString() for request in receiver.requests)
    assert b"shopassist" in sent
    for word in (b"g2wsht", b"personal"):
        assert word not in sent
    logged = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    [line] = [line for line in logged if line.get("request_id") == "request-1" and line["route"] == "/api/query"]
    assert line["trace_id"] == trace.hex()


def test_failing_statements_have_an_error_type(tmp_path: Path, database_url: str, receiver: Receiver) -> None:
    """The span of a failing statement has the type of the error, without its text."""
    program = f"""
import asyncio
from sqlalchemy import text
from shopassist.db.database import DatabaseManager
from shopassist.settings import TelemetrySettings
from shopassist.settings.database import DatabaseConfig
from shopassist.tracing import start_tracing, stop_tracing
from pydantic import SecretStr

async def main():
    start_tracing(TelemetrySettings(otlp_endpoint={receiver.address!r}), "0")
    manager = DatabaseManager(DatabaseConfig(database_url=SecretStr({database_url!r})))
    try:
        async with manager.session() as session:
            await session.execute(text("SELECT CAST(:value AS integer)"), {{"value": "hidden"}})
    except Exception as error:
        print(type(error).__name__)
    await manager.close()
    stop_tracing()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, timeout=60)
    [span] = [span for span in receiver.spans() if "CAST" in str(attributes(span).get("db.query.text"))]
    assert span.status.code == 2
    assert attributes(span)["error.type"]
    assert b"hidden" not in b"".join(request.SerializeToString() for request in receiver.requests)


def test_an_unavailable_receiver_blocks_nothing(tmp_path: Path, database_url: str) -> None:
    """Questions are answered, and the server stops in time, with 0."""
    gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    server = TestServer(tmp_path, database_url, **gone).wait_until_ready(180)
    try:
        assert server.ask("a phone", "g2wsht")[0] == 200
    finally:
        assert server.stop() == 0


def test_without_an_endpoint_nothing_of_it_is_imported() -> None:
    """OpenTelemetry's SDK and prometheus-client are not imported at startup; FastAPI itself imports the API."""
    program = (
        "import sys, containers, shopassist.asgi;"
        "late = ('opentelemetry.sdk', 'opentelemetry.exporter', 'prometheus_client');"
        "print([name for name in sys.modules if name.startswith(late)])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_endpoint_without_opentelemetry_is_said_in_one_sentence(tmp_path: Path) -> None:
    """The error names the setting and what to install."""
    program = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from shopassist.settings import TelemetrySettings\n"
        "from shopassist.tracing import start_tracing\n"
        "start_tracing(TelemetrySettings(otlp_endpoint='http://127.0.0.1:4318'), '0')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, check=False, capture_output=True, text=True, timeout=60
    )
    assert "StartupError: OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed" in done.stderr
