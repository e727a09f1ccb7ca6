"""The benchmarked server: the product's app and settings, with additional routes for the benchmark."""

import asyncio
import os
import socket
import sys

from fastapi import APIRouter, FastAPI, Request, Response

from benchmarks.database import build_settings
from benchmarks.workers import write_response
from containers import Container
from shopassist.api.dependencies import CallerDep
from shopassist.api.fast_route import FastRoute
from shopassist.app import create_app
from shopassist.asgi import Server, bind_socket, build_uvicorn_config
from shopassist.credits.routes import CreditServiceDep
from shopassist.logging import configure_logging
from shopassist.query.models import Answer, ConversationContext, Recommendation
from shopassist.settings import ServerSettings

GRANTED = b'{"granted":true}'


class ReadyAssistant:
    """Answers at once with three products."""

    def __init__(self) -> None:
        """Prepare the constant answer."""
        product = Recommendation(
            title="Phone 5G with a usual name",
            price=10999,
            currency="INR",
            rating=4.2,
            features=["5G", "8GB RAM", "128GB storage"],
            pros=["₹1,001 under your limit", "8GB RAM as you asked"],
            cons=["heavier than most"],
            link="https://www.amazon.in/s?k=phone",
        )
        self._answer = Answer(
            products=[product] * 3, recommendations_summary="Three phones fit, the first is cheapest."
        )

    async def answer(self, _: str, __: ConversationContext) -> Answer:
        """Answer."""
        return self._answer


def routes() -> APIRouter:
    """Build a route for a debit, and endpoints that return a constant number of bytes."""
    router = APIRouter(prefix="/bench")
    content = {"get": b"", "post": b""}

    async def debit(caller: CallerDep, service: CreditServiceDep) -> Response:
        granted = await service.deduct_credit(caller.user_id, caller.is_guest)
        return Response(GRANTED if granted else b"", 200 if granted else 402, media_type="application/json")

    router.add_api_route("/debit", debit, methods=["POST"], route_class_override=FastRoute)

    @router.post("/empty")
    async def empty_post(request: Request) -> Response:
        await request.body()
        return Response(content["post"], media_type="application/json")

    @router.get("/empty")
    async def empty_get() -> Response:
        return Response(content["get"], media_type="application/json")

    @router.post("/size")
    async def size(method: str, size: int) -> None:
        content[method] = b"x" * size

    return router


def mount_routes(app: FastAPI) -> FastAPI:
    """Put the benchmark's routes before the app's own, where they are found first."""
    own = list(app.router.routes)
    app.include_router(routes())
    added = [route for route in app.router.routes if route not in own]
    app.router.routes[:] = [*added, *own]
    return app


class CommandedServer(Server):
    """Prints its port when it is ready, and stops when its standard input closes."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._stop)
        assert sockets
        write_response({"port": sockets[0].getsockname()[1]})

    def _stop(self) -> None:
        self.should_exit = True
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


def main() -> None:
    """Serve the small database on a free port."""
    settings = build_settings(os.environ["BENCH_SMALL"])
    configure_logging(settings.server.log_level)
    container = Container(settings=settings)
    container.assistant.override(ReadyAssistant())
    config = build_uvicorn_config(mount_routes(create_app(container)), settings.server)
    listener = bind_socket(ServerSettings(port=0))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(CommandedServer(config).serve([listener]))


if __name__ == "__main__":
    main()
