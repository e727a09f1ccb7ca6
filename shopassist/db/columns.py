"""Column types, defaults and constraint naming that several tables share."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import DateTime, func
from sqlmodel import Field, SQLModel

Timestamp = DateTime(timezone=True)

SQLModel.metadata.naming_convention = {
    "pk": "pk_%(table_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
}


def utc_now() -> datetime:
    """Return the current instant, aware, in UTC."""
    return datetime.now(UTC)


def timestamp_column(exclude: bool | None = None) -> Any:
    """Return a `timestamptz` column with the database's `now()` as default; with `exclude` no response shows it."""
    now = {"server_default": func.now()}
    return Field(default_factory=utc_now, sa_type=Timestamp, nullable=False, exclude=exclude, sa_column_kwargs=now)


private_timestamp_column = partial(timestamp_column, exclude=True)
"""A `timestamp_column` that no response shows."""
