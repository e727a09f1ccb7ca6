"""Tables and statistics of the query cache."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from shopassist.db.columns import Timestamp, timestamp_column


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer to store as JSON text, valid for `lifetime` from then on."""

    query_hash: str
    result: str
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A stored answer, valid up to and including `expires_at`."""

    result: dict[str, Any]
    expires_at: datetime


class QueryCache(SQLModel, table=True):
    """A stored answer, valid up to and including `expires_at`."""

    __tablename__ = "query_cache"
    __table_args__ = (CheckConstraint("expires_at > cached_at", name="ck_query_cache_expires_at"),)

    query_hash: str = Field(primary_key=True, max_length=64)
    result: dict[str, Any] = Field(sa_type=JSONB)
    cached_at: datetime = timestamp_column()
    expires_at: datetime = Field(sa_type=Timestamp, index=True)


class CacheEpoch(SQLModel, table=True):
    """The number of times a cache was cleared."""

    __tablename__ = "cache_epochs"

    name: str = Field(primary_key=True, max_length=64)
    epoch: int = Field(sa_type=BigInteger)


class CacheContents(SQLModel):
    """Contents of the cache: ages by `cached_at`, times to live in seconds."""

    cache_size: int
    active_entries: int
    expired_entries: int
    oldest_entry: datetime | None
    newest_entry: datetime | None
    average_ttl_seconds: float
