"""The HTTP protocol of a connection: uvicorn's, with limits on the receipt of requests, and without upgrades."""

from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of a request's head: request line and header."""

RECEIVE_SECONDS = 30.0
"""Time for a client to send a whole request, from its connection or from the request's first byte."""

REFUSED_WITH = "refused_with"
"""Key of a request's state: the status that the client was told when the rest of the body did not come."""

BODY_FIELDS = (b"content-length", b"transfer-encoding")


class RequestProtocol(HttpToolsProtocol):
    """Refuses requests that arrive too slowly, and those with too large a head.

    It ignores `Upgrade` (RFC 9110, section 7.8), which HTTP clients written in Java send with `h2c`: uvicorn's protocol
    takes what follows such a head for another protocol, and loses the body.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take uvicorn's arguments."""
        super().__init__(*arguments, **options)
        self._head_bytes = 0
        self._is_in_head = True
        self._is_resuming = False
        self._deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request."""
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limit."""
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the next part of a request."""
        self._unset_keepalive_if_required()
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._start_deadline()
        self._parse(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Start a request, unless it is only resumed."""
        if not self._is_resuming:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        if not self._is_resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the header."""
        if not self._is_resuming:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer."""
        if not self._is_resuming:
            self._is_in_head = False
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the next request, unless a body follows that the parser takes for another protocol."""
        if self.parser.should_upgrade() and self._list_body_fields():
            return
        self._is_in_head, self._head_bytes = True, 0
        self._stop_deadline()
        super().on_message_complete()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._resume_without_upgrade()
            self._parse(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST)

    def _list_body_fields(self) -> list[tuple[bytes, bytes]]:
        return [field for field in self.headers if field[0] in BODY_FIELDS]

    def _resume_without_upgrade(self) -> None:
        """Continue with a new parser, which reads the body that the head announced."""
        self.parser = httptools.HttpRequestParser(self)
        if fields := self._list_body_fields():
            head = b"".join(b"%b: %b\r\n" % field for field in fields)
            self._is_resuming = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + head + b"\r\n")
            self._is_resuming = False

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(RECEIVE_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Send an error, unless another response is due or has begun, and close the connection."""
        self._stop_deadline()
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not (self._is_in_head or cycle.response_started):
            if not self._is_in_head:
                self.scope["state"][REFUSED_WITH] = int(status)
            text = status.phrase.encode()
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
                + b"content-length: %d\r\n\r\n%b" % (len(text), text)
            )
        self.transport.close()
