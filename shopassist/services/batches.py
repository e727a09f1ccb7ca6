"""Work in batches, each short, for as long as a turn may take."""

import time
from collections.abc import Awaitable, Callable

from shopassist.models.maintenance import Work

BATCH = 1000
"""Rows of one statement: tens of milliseconds, a second at the very most."""

TURN_SECONDS = 5.0
"""How long a turn of a job goes on; what is left then is done at its next."""


async def in_batches(batch: Callable[[int], Awaitable[int]], limit: int = BATCH, seconds: float = TURN_SECONDS) -> Work:
    """`batch` with its most of rows, again and again until it does fewer; how many altogether."""
    give_up_at = time.monotonic() + seconds
    did = 0
    while (done := await batch(limit)) >= limit:
        did += done
        if time.monotonic() >= give_up_at:
            return Work.cut_short(did)
    return Work(did + done)
