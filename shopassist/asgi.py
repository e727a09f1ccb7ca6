"""ASGI factory: `uvicorn --factory shopassist.asgi:create`; worker processes use it."""

import os
import sys
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

from fastapi import FastAPI

from containers import Container
from shopassist import __version__
from shopassist.app import create_app
from shopassist.db.embedded.process import die_with_parent
from shopassist.logging import configure_logging
from shopassist.ops.running_database import start_database
from shopassist.ops.startup import prepare_to_serve
from shopassist.server import handle_stop_signals, stop_all_workers
from shopassist.settings import WORKER, read_settings
from shopassist.tracing import start_tracing


def create() -> FastAPI:
    """Build the app from the environment. Raises `StartupError`."""
    shared = Path(os.environ[WORKER]) if os.environ.get(WORKER) else None
    if shared:
        die_with_parent()
        _exit_if_orphaned()
    settings = read_settings()
    configure_logging(settings.server.log_level)
    start_tracing(settings.telemetry, __version__)
    settings, _ = start_database(settings)
    container = Container(settings=settings)

    async def before() -> None:
        await prepare_to_serve(settings, container)

    if shared:
        container.availability().on_lost = partial(stop_all_workers, shared)
    return create_app(container, before, lambda: handle_stop_signals(container), shared)


def _exit_if_orphaned() -> None:
    """Exit when the parent had ended before `die_with_parent` took effect."""
    parent = parent_process()
    if parent is not None and parent.pid != os.getppid():
        sys.exit(1)
