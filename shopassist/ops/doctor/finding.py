"""What an examination is of, and what comes of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
from sqlalchemy import URL

from shopassist.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was seen, and, where something is wrong, what to do about it."""

    check: str
    seen: str
    fix: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to do."""
        return self.fix is None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings, and a connection as the app has it."""

    settings: Settings
    url: URL
    connection: asyncpg.Connection

    @property
    def guarded(self) -> bool:
        """Whether the strict rules of production hold: not for the embedded database."""
        return self.settings.server.production and not self.settings.embedded_database


Check = Callable[[Deployment], Awaitable[Finding]]
