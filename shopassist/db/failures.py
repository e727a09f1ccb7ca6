"""Translates errors of asyncpg and SQLAlchemy into domain errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from sqlalchemy import exc
from sqlalchemy.connectors.asyncio import AsyncAdapt_Error

from shopassist.errors import (
    ConsentExistsError,
    IntegrityError,
    NoticeExistsError,
    ShopAssistError,
    StorageUnavailableError,
)

CONSTRAINT_ERRORS: dict[str, type[ShopAssistError]] = {
    "pk_user_consents": ConsentExistsError,
    "uq_consent_notices_purpose_version_locale": NoticeExistsError,
}
"""Which domain error a violated constraint is."""

ROLLED_BACK_STATES = ("40001", "40P01")
"""SQLSTATEs (PostgreSQL manual, appendix A) of what was rolled back and may succeed when done again."""

BUSY_STATES = ("55P03", "57014", "25P03", "53100")
"""SQLSTATEs of one statement that cannot be served now: a lock, a time limit, no room. Others may be."""

READ_ONLY_STATE = "25006"
"""SQLSTATE of a write that a standby refuses, or a server that was made read-only."""

UNAVAILABLE_STATES = ("08", "28", "3D000", "53", "57P", "58", "XX000")
"""SQLSTATE prefixes of a server that is away, lets us in no more, is full, stopping or broken."""

NOT_ACCEPTING_STATES = ("57P03", "53300")
"""SQLSTATEs of a server that accepts no connection at this moment."""

CONNECTION_ERRORS = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)
"""What asyncpg raises when a connection ends under a statement."""

BROKEN_CONNECTION_ERROR = asyncpg.InternalClientError
"""What it raises when the server has said goodbye on a connection that is not closed yet: it is of no use any more."""


class NotSentError(StorageUnavailableError):
    """No connection could be had, so nothing has happened."""


class ConnectTimeoutError(StorageUnavailableError):
    """No connection was to be had in time: nothing has happened, and there is no time to try again."""


class RolledBackError(StorageUnavailableError):
    """The database rolled back what was asked, for the sake of others: nothing has happened."""


class BusyError(StorageUnavailableError):
    """What was asked cannot be done now; the database is well otherwise."""


class ReadOnlyError(BusyError):
    """The server can be read and not be written to; another may have taken its place. Nothing has happened."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server's process, told from any other that has, or will have, its number, there or on another server."""

    pid: int
    began: datetime


class ConnectionLostError(StorageUnavailableError):
    """The connection broke, or time was up, with a statement on its way: whether it happened is not known.

    `backend` is the process that had it, where that is known: it may still be at it.
    """

    detail = (
        "The service lost its database while it worked on this. Nothing is charged twice, and what was charged "
        "is given again for nothing: please try again shortly."
    )

    def __init__(self, backend: ServerProcess | None = None) -> None:
        super().__init__()
        self.backend = backend


class UnresponsiveError(ConnectionLostError):
    """The server has the statement and does not answer."""


ERRORS_BY_STATE: dict[tuple[str, ...], type[StorageUnavailableError]] = {
    ROLLED_BACK_STATES: RolledBackError,
    (READ_ONLY_STATE,): ReadOnlyError,
    BUSY_STATES: BusyError,
    NOT_ACCEPTING_STATES: NotSentError,
}


@contextmanager
def detect_lost_connection(backend: ServerProcess | None = None) -> Iterator[None]:
    """Raise `ConnectionLostError` when the connection breaks or time is up within this block."""
    try:
        yield
    except (
        TimeoutError,
        OSError,
        asyncpg.InterfaceError,
        asyncpg.PostgresError,
        BROKEN_CONNECTION_ERROR,
        exc.DBAPIError,
    ) as error:
        if isinstance(error, exc.DBAPIError) and not error.connection_invalidated:
            raise
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, CONNECTION_ERRORS):
            raise
        raise (UnresponsiveError if isinstance(error, TimeoutError) else ConnectionLostError)(backend) from error


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise domain errors in place of the driver's. Raises `IntegrityError` and its kin, `StorageUnavailableError`."""
    try:
        yield
    except exc.IntegrityError as error:
        name = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
        raise CONSTRAINT_ERRORS.get(str(name), IntegrityError) from error
    except asyncpg.IntegrityConstraintViolationError as error:
        raise CONSTRAINT_ERRORS.get(str(error.constraint_name), IntegrityError) from error
    except (TimeoutError, exc.TimeoutError) as error:
        raise ConnectTimeoutError from error
    except (OSError, asyncpg.InterfaceError, AsyncAdapt_Error) as error:
        # The last is what SQLAlchemy raises when it could not open a connection that is not for a session.
        raise NotSentError from error
    except (exc.DBAPIError, asyncpg.PostgresError) as error:
        meaning = classify_error(error)
        if meaning is None:
            raise
        raise meaning from error


def classify_error(error: BaseException) -> StorageUnavailableError | None:
    """What a driver's error says of the database, or None when it is the statement that was wrong."""
    state = str(getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None) or "")
    for states, meaning in ERRORS_BY_STATE.items():
        if state in states:
            return meaning()
    if isinstance(getattr(getattr(error, "orig", None), "__cause__", None), BROKEN_CONNECTION_ERROR):
        return ConnectionLostError()
    if isinstance(error, exc.DBAPIError) and (error.connection_invalidated or isinstance(error, exc.InterfaceError)):
        return ConnectionLostError()
    return StorageUnavailableError() if state.startswith(UNAVAILABLE_STATES) else None
