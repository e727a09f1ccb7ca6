"""The load generator: keep-alive HTTP/1.1 connections that send fixed bytes and count responses.

It implements just enough of HTTP to be cheap: responses have `Content-Length`, and each connection has one open
request.
Its own CPU time is reported, to show that it was not the bottleneck.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from typing import Any, cast

from benchmarks.workers import build_sample, cpu_seconds, run_worker

WARM_UP_SECONDS = 0.4
HEADERS = "Host: 127.0.0.1\r\nAccept: application/json\r\nUser-Agent: load\r\nAccept-Encoding: gzip, deflate\r\n"
LENGTH = b"content-length: "
unique = itertools.count(int(time.time()) % 100_000 * 10_000)


def requests(method: str, path: str, users: int, body: str | None) -> Iterator[bytes]:
    """Yield requests of random guests without end; `{n}` in the body is a new number each time."""
    names = [f"bench-{n:07}" for n in random.sample(range(users), min(users, 20_000))]
    content = f"Content-Type: application/json\r\nContent-Length: {len(body) - 3 + 10}\r\n" if body else ""
    heads = [f"{method} {path} HTTP/1.1\r\n{HEADERS}X-Session-ID: {name}\r\n{content}\r\n".encode() for name in names]
    if body is None:
        yield from itertools.cycle(heads)
    before, after = (part.encode() for part in (body or "").split("{n}"))
    for head in itertools.cycle(heads):
        yield b"%b%b%010d%b" % (head, before, next(unique), after)


class Connection(asyncio.Protocol):
    """One connection with one open request at a time."""

    def __init__(self, sent: Iterator[bytes]) -> None:
        """Send the next of `sent` when a response is complete."""
        self._sent = sent
        self._pending = b""
        self._began = 0.0
        self.latencies: list[float] = []
        self.failed = 0
        self.size = 0
        self.stopping = False
        self.idle = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not subclasses
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count a complete response and send the next request."""
        if self._pending:
            data = self._pending + data
        end = data.find(b"\r\n\r\n")
        start = data.find(LENGTH, 0, end)
        self.size = int(data[start + len(LENGTH) : data.find(b"\r", start)]) if start >= 0 else 0
        if end < 0 or start < 0 or len(data) < end + 4 + self.size:
            self._pending = data
            return
        self._pending = b""
        self.latencies.append(time.perf_counter() - self._began)
        self.failed += data[9:12] != b"200"
        if self.stopping:
            self.idle.set_result(None)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the measurement when the server closes the connection."""
        if not self.idle.done():
            self.idle.set_exception(exc or ConnectionError("The server closed the connection."))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(next(self._sent))


async def load(
    port: int, pid: int, connections: int, seconds: float, method: str, path: str, users: int, body: str | None = None
) -> dict[str, Any]:
    """Send load to the server on `port`, with process id `pid`, and measure after warming up."""
    loop, sent = asyncio.get_running_loop(), requests(method, path, users, body)
    opened = [
        (await loop.create_connection(lambda: Connection(sent), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(min(WARM_UP_SECONDS, seconds))
    for connection in opened:
        connection.latencies.clear()
    server_cpu, own_cpu, began = cpu_seconds(pid), time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    server_cpu, own_cpu, ended = cpu_seconds(pid) - server_cpu, time.process_time() - own_cpu, time.perf_counter()
    latencies = [latency for connection in opened for latency in connection.latencies]
    for connection in opened:
        connection.stopping = True
    await asyncio.gather(*(connection.idle for connection in opened))
    for connection in opened:
        connection.close()
    counted = {"failed": sum(connection.failed for connection in opened), "size": opened[0].size}
    return build_sample(began, ended, latencies, server_cpu, client_cpu_seconds=own_cpu, **counted)


if __name__ == "__main__":
    run_worker(load)
