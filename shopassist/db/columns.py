"""Column types, defaults and constraint naming that several tables share."""

from datetime import UTC, datetime
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


def timestamp_column() -> Any:
    """Return a `timestamptz` column with the database's `now()` as default."""
    return Field(
        default_factory=utc_now, sa_type=Timestamp, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )


def private_timestamp_column() -> Any:
    """Return a `timestamp_column` that no response shows."""
    return Field(
        default_factory=utc_now,
        sa_type=Timestamp,
        nullable=False,
        exclude=True,
        sa_column_kwargs={"server_default": func.now()},
    )
