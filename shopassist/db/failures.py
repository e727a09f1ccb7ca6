"""Translates errors of asyncpg and SQLAlchemy into domain errors, and into sentences for the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from sqlalchemy import exc

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
"""The domain error of a violated constraint."""

UNAVAILABLE_STATES = ("08", "28", "3D000", "53", "57P", "58", "XX000")
"""SQLSTATE prefixes of a server that is unreachable, refuses the login, is full, stopping or broken."""

CONNECTION_ERRORS = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)
"""Raised by asyncpg when the connection ends during a statement."""

BROKEN_CONNECTION_ERROR = asyncpg.InternalClientError
"""Raised by asyncpg after the server terminated the session but before the socket closed."""


class NotSentError(StorageUnavailableError):
    """No connection could be opened, so the statement had no effect."""


class ConnectTimeoutError(StorageUnavailableError):
    """No connection became available in time: no effect, and no time left to retry."""


class RolledBackError(StorageUnavailableError):
    """The database rolled back the transaction in favour of others: no effect."""


class BusyError(StorageUnavailableError):
    """The statement failed for now; the database is available otherwise."""


class ReadOnlyError(BusyError):
    """The server is read-only: no effect. Another server may have become the primary."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server process. The start time distinguishes it from others with the same pid."""

    pid: int
    started_at: datetime


class ConnectionLostError(StorageUnavailableError):
    """The connection broke, or time ran out, during a statement: its outcome is unknown.

    `backend` is the server process, if known; it may still be running the statement.
    """

    detail = (
        "The service lost its database while it worked on this. Nothing is charged twice, and what was charged "
        "is given again for nothing: please try again shortly."
    )

    def __init__(self, backend: ServerProcess | None = None) -> None:
        super().__init__()
        self.backend = backend


class SlowError(ConnectionLostError):
    """The work took too long, although the server answers others: it was given up, and its outcome is unknown."""


ERRORS_BY_STATE: dict[str, type[StorageUnavailableError]] = {
    # Another transaction was preferred; a retry may succeed.
    **dict.fromkeys(("40001", "40P01"), RolledBackError),
    # A lock, a time limit or a full disk: other statements may succeed.
    **dict.fromkeys(("55P03", "57014", "25P03", "53100"), BusyError),
    # A write to a standby, or to a server that was made read-only.
    "25006": ReadOnlyError,
    # The server accepts no connection at the moment.
    **dict.fromkeys(("57P03", "53300"), NotSentError),
}
"""Errors by SQLSTATE (PostgreSQL manual, appendix A)."""


@contextmanager
def detect_lost_connection(backend: ServerProcess | None = None) -> Iterator[None]:
    """Raise `ConnectionLostError` in place of asyncpg's errors when the connection breaks in this block."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, BROKEN_CONNECTION_ERROR, *CONNECTION_ERRORS) as error:
        raise ConnectionLostError(backend) from error


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `IntegrityError`, `StorageUnavailableError` or a subclass in place of the driver's errors."""
    try:
        yield
    except exc.IntegrityError as error:
        name = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
        raise CONSTRAINT_ERRORS.get(str(name), IntegrityError) from error
    except asyncpg.IntegrityConstraintViolationError as error:
        raise CONSTRAINT_ERRORS.get(str(error.constraint_name), IntegrityError) from error
    except (TimeoutError, exc.TimeoutError) as error:
        raise ConnectTimeoutError from error
    except (OSError, asyncpg.InterfaceError) as error:
        raise NotSentError from error
    except (exc.DBAPIError, asyncpg.PostgresError) as error:
        translated = classify_error(error)
        if translated is None:
            raise
        raise translated from error


def classify_error(error: BaseException) -> StorageUnavailableError | None:
    """Return the domain error of a driver's error, or None if the statement itself was wrong."""
    state = str(getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None) or "")
    if state in ERRORS_BY_STATE:
        return ERRORS_BY_STATE[state]()
    if isinstance(getattr(getattr(error, "orig", None), "__cause__", None), BROKEN_CONNECTION_ERROR):
        return ConnectionLostError()
    if isinstance(error, exc.DBAPIError) and (error.connection_invalidated or isinstance(error, exc.InterfaceError)):
        return ConnectionLostError()
    return StorageUnavailableError() if state.startswith(UNAVAILABLE_STATES) else None


SENTENCES_BY_STATE = {
    "28": "The database refuses the user or password of {setting} ({reason}).",
    "3D000": "The database that {setting} names does not exist ({reason}).",
    "42501": (
        "The role of {setting} may not do this ({reason}): use the link of a role that may, or grant it with "
        "`shopassist db provision`."
    ),
    **dict.fromkeys(
        ("3F000", "42P01", "42703", "42704", "42883"),
        "The schema of the database is not the one that this version needs ({reason}): run `shopassist db upgrade`.",
    ),
    "25006": "The database can only be read ({reason}): put the link of the primary server into {setting}.",
    "53": "The database server has no room left ({reason}): free space, memory or connections there.",
    **dict.fromkeys(
        ("40", "55P03", "57014", "25P03"), "The database is too busy or too slow for this ({reason}): try again later."
    ),
    **dict.fromkeys(
        ("22021", "22P05"), "The database cannot hold this text ({reason}): it must be created with ENCODING 'UTF8'."
    ),
    **dict.fromkeys(
        ("08", "57P", "58", "XX"), "The database of {setting} failed ({reason}): see the log of its server."
    ),
}
"""What to tell an operator, by the beginning of the SQLSTATE."""

NO_ANSWER_SENTENCE = "The database of {setting} does not answer: check the link, and that its server runs."


def describe_database_error(error: BaseException) -> str | None:
    """Return a sentence for the operator about an error of the database, or None for any other error.

    A note of the error names the setting of the link; unless there is one, it is DATABASE_URL.
    """
    causes = list(_list_causes(error))
    notes = [note for cause in causes for note in getattr(cause, "__notes__", ())]
    setting = notes[0] if notes else "DATABASE_URL"
    for cause in causes:
        if isinstance(cause, asyncpg.PostgresError):
            for state, sentence in SENTENCES_BY_STATE.items():
                if str(cause.sqlstate).startswith(state):
                    return sentence.format(setting=setting, reason=cause.args[0])
    return NO_ANSWER_SENTENCE.format(setting=setting) if isinstance(error, StorageUnavailableError) else None


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, down to the driver's own."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__
