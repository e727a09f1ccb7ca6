"""What a failure of the database means to the product: one translation, in one place."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy import exc

from shopassist.errors import ConsentExistsError, IntegrityError, ShopAssistError, StorageUnavailableError

CONSTRAINT_ERRORS: dict[str, type[ShopAssistError]] = {"pk_user_consents": ConsentExistsError}
"""Which domain error a violated constraint is."""

UNAVAILABLE_CLASSES = ("08", "53", "57P", "58")
"""SQLSTATE prefixes of a server that is away, full, stopping or broken (PostgreSQL manual, appendix A)."""


CONNECTION_ENDED = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)
"""What asyncpg raises when a connection ends under a statement."""


class ConnectionLostError(StorageUnavailableError):
    """The connection broke with a statement on its way: whether it happened is not known."""


@contextmanager
def sent() -> Iterator[None]:
    """Raise `ConnectionLostError` when the connection breaks within this block."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError, exc.DBAPIError) as error:
        if isinstance(error, exc.DBAPIError) and not error.connection_invalidated:
            raise
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, CONNECTION_ENDED):
            raise
        raise ConnectionLostError from error


@contextmanager
def translated() -> Iterator[None]:
    """Raise domain errors in place of the driver's. Raises `IntegrityError` and its kin, `StorageUnavailableError`."""
    try:
        yield
    except exc.IntegrityError as error:
        name = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
        raise CONSTRAINT_ERRORS.get(str(name), IntegrityError) from error
    except asyncpg.IntegrityConstraintViolationError as error:
        raise CONSTRAINT_ERRORS.get(str(error.constraint_name), IntegrityError) from error
    except (TimeoutError, OSError, exc.TimeoutError, asyncpg.InterfaceError) as error:
        raise StorageUnavailableError from error
    except (exc.DBAPIError, asyncpg.PostgresError) as error:
        if is_unavailable(error):
            raise StorageUnavailableError from error
        raise


def is_unavailable(error: BaseException) -> bool:
    """Whether `error` says that the server cannot be used now, rather than that the statement was wrong."""
    if isinstance(error, exc.DBAPIError) and (error.connection_invalidated or isinstance(error, exc.InterfaceError)):
        return True
    state = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return str(state).startswith(UNAVAILABLE_CLASSES)
