"""The HTTP server: in one process, or in several worker processes on one socket.

Worker processes use the ASGI factory: `uvicorn --factory shopassist.asgi:create`.
"""

import asyncio
import errno
import gc
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import typer
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from containers import Container
from shopassist import __version__
from shopassist.api.protocol import RequestProtocol
from shopassist.app import create_app, do_nothing
from shopassist.db.embedded.programs import die_with_parent
from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.errors import DatabaseAbsentError, DatabaseLostError, StartupError, StorageUnavailableError
from shopassist.identity.key_derivation import read_secret, require_secret
from shopassist.identity.tokens import DevelopmentIssuer, trusts_development_tokens
from shopassist.logging import configure_logging, discard_unwritable_output
from shopassist.ops.startup import prepare_to_serve, start_database
from shopassist.settings import WORKER, ServerSettings, Settings, http_address, read_settings
from shopassist.tracing import start_tracing

SHUTDOWN_SECONDS = 6
DRAIN_SECONDS = 4
"""Time for running questions after a stop signal; then they are abandoned without a charge.

Including all other shutdown steps, the process ends within 10 seconds."""

WORKER_TIMEOUT_SECONDS = 30
"""Time without a sign of life, such as during a start on a busy machine, before a worker is replaced."""

LOST_FILE_NAME = "lost"
"""File in the workers' shared folder with the reason why all of them must end."""

LISTEN_BACKLOG = 2048
APP = "shopassist.asgi:create"
EXAMPLE_QUESTION = "best 5G phone under ₹12,000 with 8GB RAM"


def print_address(settings: Settings, embedded: EmbeddedPostgres | None) -> None:
    """Print the server's address and commands to try, as far as the output can take them."""
    address = http_address(settings.server.host, settings.server.port)
    lines = [f"shopassist {__version__} serves on {address}  (page: {address}/  API: {address}/docs)"]
    if embedded:
        lines.append(f"data is kept in {embedded.data_directory}")
    lines += [
        "ask it:",
        f"  curl {address}/api/query -H 'X-Session-ID: me' -H 'Content-Type: application/json' \\",
        f'    -d \'{{"query": "{EXAMPLE_QUESTION}"}}\'',
    ]
    if trusts_development_tokens(settings):
        lines.append(f"a token for a registered user: {find_command()} token --sub 'auth0|me'")
    with suppress(OSError, ValueError):
        typer.echo("\n".join(lines))


def find_command() -> str:
    """Return what to type to run this installation's command line."""
    script = Path(sys.executable).with_name("shopassist")
    if shutil.which(script.name) == str(script):
        return script.name
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m shopassist"
    return shlex.quote(str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script))


class Server(uvicorn.Server):
    """Calls `announce` once it accepts requests."""

    announce: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests."""
        await super().startup(sockets)
        freeze_garbage_collector()
        if self.announce and self.started:
            self.announce()

    def stop(self, _: str) -> None:
        """Finish running requests, and end."""
        self.should_exit = True


def freeze_garbage_collector() -> None:
    """Exclude long-lived objects from garbage collection.

    Scanning them repeatedly took a quarter of the CPU time under load, and paused requests for 80 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def run_server(settings: Settings, container_of: Callable[..., Any] = Container) -> None:
    """Serve until a stop signal. Raises `StartupError` when the server cannot start."""
    if settings.storage.is_one_process and settings.server.workers > 1:
        raise StartupError(
            f"STORAGE={settings.storage.storage} keeps state in the memory of one process, which a second worker could "
            "not see: set WORKERS to 1, or keep all state in PostgreSQL (STORAGE=postgres)."
        )
    require_secret(settings)
    if settings.server.workers == 1:
        start_tracing(settings.telemetry, __version__)
    listener = bind_socket(settings.server)
    settings = settings.with_port(listener.getsockname()[1])
    settings, embedded = start_database(settings)
    try:
        check_keys(settings)
        with asyncio.Runner(loop_factory=build_uvicorn_config(APP, settings.server).get_loop_factory()) as runner:
            runner.run(_serve_process(settings, container_of(settings=settings), listener, embedded))
        if settings.server.workers > 1:
            _serve_workers(settings.server, listener)
    finally:
        if embedded:
            embedded.stop()
        discard_unwritable_output()


def check_keys(settings: Settings) -> None:
    """Raise `StartupError` when a key in the data folder cannot be used."""
    read_secret(settings)
    if trusts_development_tokens(settings):
        DevelopmentIssuer(settings).check_key()


async def _serve_process(
    settings: Settings, container: Any, listener: socket.socket, embedded: EmbeddedPostgres | None
) -> None:
    """Prepare the database and, without worker processes, serve. Raises `DatabaseLostError` when it stays away."""
    before: Callable[[], Awaitable[None]] = partial(prepare_to_serve, settings, container)
    try:
        try:
            await before()
            before = do_nothing
        except (DatabaseAbsentError, StorageUnavailableError):
            if not settings.database.start_degraded:
                raise
        if settings.server.workers > 1:
            print_address(settings, embedded)
            return
        app = create_app(container, before, partial(handle_stop_signals, container))
        server = Server(build_uvicorn_config(app, settings.server))
        server.announce = partial(print_address, settings, embedded)
        availability = container.availability()
        availability.on_lost = server.stop
        await server.serve([listener])
        if availability.lost:
            raise DatabaseLostError(availability.lost)
    finally:
        await container.shutdown()


def _serve_workers(settings: ServerSettings, listener: socket.socket) -> None:
    with TemporaryDirectory(prefix="shopassist-") as shared:
        os.environ[WORKER] = shared
        served = build_uvicorn_config(
            APP, settings, factory=True, workers=settings.workers, timeout_worker_healthcheck=WORKER_TIMEOUT_SECONDS
        )
        supervisor = Multiprocess(served, sockets=[listener])
        supervisor.run()
        lost = Path(shared) / LOST_FILE_NAME
        if lost.exists():
            raise DatabaseLostError(lost.read_text(encoding="utf-8"))
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise StartupError("A worker process could not start; what it said stands above.")


def create() -> FastAPI:
    """Build the app from the environment, for a worker process or an ASGI server. Raises `StartupError`."""
    shared = Path(os.environ[WORKER]) if os.environ.get(WORKER) else None
    if shared:
        die_with_parent()
        parent = parent_process()
        if parent is not None and parent.pid != os.getppid():
            sys.exit(1)  # the parent had ended before `die_with_parent` took effect
    configure_logging("warning")  # warnings about settings are logged too
    settings = read_settings()
    configure_logging(settings.server.log_level)
    start_tracing(settings.telemetry, __version__)
    settings, _ = start_database(settings)
    container = Container(settings=settings)
    if shared:
        container.availability().on_lost = partial(stop_all_workers, shared)
    return create_app(
        container, partial(prepare_to_serve, settings, container), partial(handle_stop_signals, container), shared
    )


def stop_all_workers(shared: Path, reason: str) -> None:
    """Write the reason into the folder `shared`, and stop the server that this worker process belongs to."""
    (shared / LOST_FILE_NAME).write_text(reason, encoding="utf-8")
    os.kill(os.getppid(), signal.SIGTERM)


def handle_stop_signals(container: Any) -> None:
    """After a stop signal report that the process is stopping, and abandon questions that run for too long.

    Their callers are told that there is no answer and that nothing was charged.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        container.availability().stop()
        loop.call_later(DRAIN_SECONDS, container.single_flight().abandon)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None, then: Any = previous) -> None:
            loop.call_soon_threadsafe(stop)
            if callable(then):
                then(number, frame)

        signal.signal(number, handle)


NO_ADDRESS_ERRORS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL}


def bind_socket(settings: ServerSettings) -> socket.socket:
    """Return the listening socket. Raises `StartupError` when the port is taken or not permitted, or the host not here.

    It listens at once, because until then another server could bind the same port.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(LISTEN_BACKLOG)
    except (OSError, UnicodeError) as error:
        listener.close()
        if not isinstance(error, OSError) or isinstance(error, socket.gaierror) or error.errno in NO_ADDRESS_ERRORS:
            raise StartupError(
                f"API_HOST={settings.host} is not an address of this machine: set it to one without a port, such as "
                "127.0.0.1, or to 0.0.0.0 for all of them."
            ) from None
        raise StartupError(
            f"Port {settings.port} on {settings.host} cannot be used ({error.strerror}): "
            "stop what uses it or set API_PORT to another."
        ) from None
    listener.set_inheritable(True)
    return listener


def build_uvicorn_config(app: FastAPI | str, settings: ServerSettings, **options: Any) -> uvicorn.Config:
    """Return the configuration of uvicorn for `app`."""
    return uvicorn.Config(
        app,
        http=RequestProtocol,
        timeout_keep_alive=settings.keep_alive_seconds,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        **options,
    )
