"""Clock and other small ports of the database layer."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the instant that decides about resets and expiry."""

    def instant(self) -> datetime | None:
        """The aware instant to bind, or None to let the database's own `now()` decide."""


class SystemClock:
    """Leaves time to the database."""

    def instant(self) -> datetime | None:
        """None: the database's `now()` decides."""
        return None


UserHashFunction = Callable[[str], str]
"""A user id under the key of erased subjects, as 64 hex characters."""
