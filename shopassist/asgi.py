"""The app for a server: `uvicorn --factory shopassist.asgi:create` works, and `shopassist serve` uses it."""

import os
import sys
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

from fastapi import FastAPI

from containers import Container
from shopassist import __version__
from shopassist.api.app import create_app
from shopassist.db.embedded import die_with_parent
from shopassist.ops.startup import prepare_to_serve, read_settings, with_database
from shopassist.server import end_all_workers, end_in_time
from shopassist.settings import WORKER
from shopassist.telemetry import configure_logging
from shopassist.telemetry.traces import begin_tracing


def create() -> FastAPI:
    """The app by the environment; it prepares the database when it starts. Raises `StartupError`."""
    shared = Path(os.environ[WORKER]) if os.environ.get(WORKER) else None
    if shared:
        die_with_parent()
        _end_if_orphaned()
    settings = read_settings()
    configure_logging(settings.server.log_level)
    begin_tracing(settings.telemetry, __version__)
    settings, _ = with_database(settings)
    container = Container(settings=settings)

    async def before() -> None:
        await prepare_to_serve(settings, container)

    if shared:
        container.availability().on_lost = partial(end_all_workers, shared)
    return create_app(container, before, lambda: end_in_time(container), shared)


def _end_if_orphaned() -> None:
    """End here when the parent was gone before this process could ask to be told of it."""
    parent = parent_process()
    if parent is not None and parent.pid != os.getppid():
        sys.exit(1)
