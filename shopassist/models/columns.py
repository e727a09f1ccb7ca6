"""Columns that several tables share."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, func
from sqlmodel import Field

Timestamp = DateTime(timezone=True)


def utc_now() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC)


def timestamp() -> Any:
    """A `timestamptz` column that the database fills with its own `now()` when nothing is given."""
    return Field(
        default_factory=utc_now, sa_type=Timestamp, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )


def private_timestamp() -> Any:
    """A `timestamp()` that no response shows."""
    return Field(
        default_factory=utc_now,
        sa_type=Timestamp,
        nullable=False,
        exclude=True,
        sa_column_kwargs={"server_default": func.now()},
    )
