"""Headers that tell browsers to be careful, and clients how often they may ask. Pure ASGI."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopassist.api.content_policy import NOTHING
from shopassist.api.limits import quota_headers
from shopassist.identity.networks import Networks

CAREFUL = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]
NO_PAGE = (b"content-security-policy", NOTHING.encode())
ONLY_TLS = (b"strict-transport-security", b"max-age=31536000")
"""A year; said only over TLS, since over plain HTTP nobody may believe it (RFC 6797, section 7.2)."""


class SecurityHeaders:
    """Adds them to every answer."""

    def __init__(self, app: ASGIApp, networks: Networks) -> None:
        """`networks` knows which proxies are believed to say that the client came over TLS."""
        self.app = app
        self.networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = [*message["headers"], *CAREFUL]
                if NO_PAGE[0] not in [name for name, _ in headers]:
                    headers.append(NO_PAGE)
                quota = scope.get("quota")
                if quota is not None:
                    headers += quota_headers(quota)
                if scope["scheme"] == "https" or self.networks.is_behind_tls(peer_of(scope), scope["headers"]):
                    headers.append(ONLY_TLS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def peer_of(scope: Scope) -> str | None:
    """The address of whoever is connected."""
    client = scope.get("client")
    return client[0] if client else None
