"""Connections as clients and attackers use them, on a real server."""

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from structlog.testing import capture_logs

from shopassist.api import protocol
from shopassist.api.protocol import MAX_HEAD_BYTES, RequestProtocol
from tests.support.access_matrix import app_of_memory
from tests.support.servers import TestServer

RECEIVE_SECONDS = 0.5
"""The time limit of the server that serves `echo`."""

REAL_RECEIVE_SECONDS = protocol.RECEIVE_SECONDS
STALLED = 240
UPGRADE = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
BODY = '{"query": "phone"}'


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body of the request."""
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    if message["type"] == "http.disconnect":
        return
    body += message["body"]
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(app: Any) -> Iterator[tuple[str, int]]:
    """Serve `app` with short time limits, and yield the address."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:
        patch.setattr(protocol, "RECEIVE_SECONDS", RECEIVE_SECONDS)
        config = uvicorn.Config(app, http=RequestProtocol, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[:2]
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Return the address of a server of `echo`."""
    with serving(echo) as address:
        yield address


LAST = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"


def exchange(address: tuple[str, int], *parts: str, pause: float = 0.02) -> str:
    """Send the parts one after another and then the last request, and return all responses but the last."""
    with socket.create_connection(address, timeout=3) as connection:
        for part in parts:
            connection.sendall(part.encode())
            time.sleep(pause)
        connection.sendall(LAST.encode())
        received = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return received.rpartition("HTTP/1.1 200 OK")[0]


@pytest.mark.parametrize(
    "framed",
    [
        f"Content-Length: {len(BODY)}\r\n\r\n{BODY}",
        f"Transfer-Encoding: chunked\r\n\r\n5\r\n{BODY[:5]}\r\n{len(BODY) - 5:x}\r\n{BODY[5:]}\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("upgrade", [UPGRADE, "", "Connection: upgrade\r\nUpgrade: websocket\r\n"])
@pytest.mark.parametrize("cut", [None, 40, -10, -1])
def test_a_request_that_asks_for_an_upgrade_keeps_its_body(
    address: tuple[str, int], upgrade: str, framed: str, cut: int | None
) -> None:
    """Java's clients send `Upgrade: h2c`. However the request is cut into packets, it is read, and so is the next."""
    request = f"POST /api/query HTTP/1.1\r\nHost: shop\r\n{upgrade}{framed}"
    parts = [request] if cut is None else [request[:cut], request[cut:]]
    received = exchange(address, *parts, "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nnext")
    first, second = received.split("HTTP/1.1 200 OK")[1:]
    assert first.endswith(BODY)
    assert second.endswith("next")


def test_an_upgrade_without_a_body_is_answered(address: tuple[str, int]) -> None:
    """So is the request behind it in the same packet."""
    get = f"GET / HTTP/1.1\r\nHost: shop\r\n{UPGRADE}\r\n"
    assert exchange(address, get + get).count("HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("field", ["X-Long: " + "a" * MAX_HEAD_BYTES, "\r\n".join(["X-Short: a"] * 6000)])
def test_a_large_head_is_refused(address: tuple[str, int], field: str) -> None:
    """Whether one field is large or all together, before the head ends."""
    with socket.create_connection(address, timeout=3) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: shop\r\n{field}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 431 ")


def test_a_head_within_the_limit_is_read(address: tuple[str, int]) -> None:
    """Long cookies are usual."""
    field = "X-Long: " + "a" * (MAX_HEAD_BYTES - 200)
    assert exchange(address, f"GET / HTTP/1.1\r\nHost: shop\r\n{field}\r\n\r\n").startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: shop\r\n",
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nhalf",
        f"POST / HTTP/1.1\r\nHost: shop\r\n{UPGRADE}Content-Length: 9\r\n\r\nhalf",
    ],
)
def test_a_request_that_does_not_end_is_refused(address: tuple[str, int], sent: str) -> None:
    """408 and the end of the connection, whatever part of it has come."""
    with socket.create_connection(address, timeout=3) as connection:
        connection.sendall(sent.encode())
        started_at = time.monotonic()
        received = b"".join(iter(lambda: connection.recv(1000), b""))
        assert received.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started_at < RECEIVE_SECONDS + 1


def test_drops_of_a_body_do_not_prolong_the_time(address: tuple[str, int]) -> None:
    """The limit is for the whole request, not for the pause between two packets."""
    with socket.create_connection(address, timeout=3) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\n")
        for _ in range(3):
            time.sleep(0.3 * RECEIVE_SECONDS)
            connection.sendall(b"a")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_later_request_has_its_own_time(address: tuple[str, int]) -> None:
    """An idle connection is kept; the time starts with the first byte."""
    request = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi"
    assert exchange(address, request, request, pause=1.5 * RECEIVE_SECONDS).count("HTTP/1.1 200 OK") == 2


CHUNKED = "POST /api/query HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "leaves", "status"),
    [
        ("POST /api/query HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n", False, 408),
        ("HEAD /health HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nhalf", False, 408),
        (CHUNKED + "5\r\nhalf", False, 408),
        (CHUNKED + "no chunk\r\n", False, 400),
        ("POST /api/query HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n", True, 499),
        ("DELETE /api/user HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nhalf", True, 499),
        (CHUNKED + "5\r\nhalf", True, 499),
    ],
)
def test_a_body_that_does_not_come_is_no_fault_of_the_server(sent: str, leaves: bool, status: int) -> None:
    """The log has what the client was told, or 499 if it has gone; the metrics count it as 4xx."""
    with capture_logs() as events, serving(app_of_memory()) as address:
        with socket.create_connection(address, timeout=3) as connection:
            connection.sendall(sent.encode())
            if not leaves:
                assert connection.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
        deadline = time.monotonic() + 3
        while not (logged := [event["status"] for event in events if event["event"] == "request"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        metrics = httpx.get(f"http://{address[0]}:{address[1]}/metrics").text
    assert logged == [status]
    assert 'route="other",status="4xx"' in metrics
    assert 'status="5xx"' not in metrics


@pytest.mark.slow
async def test_stalled_connections_do_not_lock_others_out(database_url: str, tmp_path: Path) -> None:
    """A process that may open 256 files, and 240 clients that never send the end of a request: 30 s later it serves."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        server = TestServer(tmp_path, database_url)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    stalled: list[socket.socket] = []
    try:
        await asyncio.to_thread(server.wait_until_ready)
        for number in range(STALLED):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: " if number % 2 else b"")
            stalled.append(connection)
        await asyncio.sleep(REAL_RECEIVE_SECONDS + 2)
        started_at = time.monotonic()
        status, _, _ = await asyncio.to_thread(server.ask, "phone", "guest")
        assert status == 200
        assert time.monotonic() - started_at < 5
    finally:
        for connection in stalled:
            connection.close()
        server.kill()
