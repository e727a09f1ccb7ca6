"""The host names that this server answers to. Pure ASGI."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from shopassist.api.errors import domain_error
from shopassist.errors import HostNotAllowedError


class AllowedHosts:
    """Refuses requests to other hosts, so that no link of ours ever leads to a name that a client made up."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        """`allowed` holds whole names, and `*.name` for all names below it."""
        self.app = app
        names = [name.lower() for name in allowed]
        self.names = frozenset(names)
        self.ends = tuple(name[1:] for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or self._is_allowed(scope):
            await self.app(scope, receive, send)
            return
        answer = await domain_error(Request(scope), HostNotAllowedError())
        await answer(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return False
        name = without_port(hosts[0])
        return name in self.names or name.endswith(self.ends)


def without_port(host: str) -> str:
    """The name, or the address without its brackets, in a `Host` header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")
