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
    """An answer to keep, as the text of a JSON object, from the instant it is stored, for `lifetime`."""

    query_hash: str
    result: str
    lifetime: timedelta


class QueryCache(SQLModel, table=True):
    """One stored answer, valid up to and including `expires_at`."""

    __tablename__ = "query_cache"
    __table_args__ = (CheckConstraint("expires_at > cached_at", name="ck_query_cache_expires_at"),)

    query_hash: str = Field(primary_key=True, max_length=64)
    result: dict[str, Any] = Field(sa_type=JSONB)
    cached_at: datetime = timestamp_column()
    expires_at: datetime = Field(sa_type=Timestamp, index=True)


class CacheEpoch(SQLModel, table=True):
    """How often a cache was cleared."""

    __tablename__ = "cache_epochs"

    name: str = Field(primary_key=True, max_length=64)
    epoch: int = Field(sa_type=BigInteger)


class CacheContents(SQLModel):
    """What the cache holds at one instant. Ages are of the entries' `cached_at`; the time to live is in seconds."""

    cache_size: int
    active_entries: int
    expired_entries: int
    oldest_entry: datetime | None
    newest_entry: datetime | None
    average_ttl_seconds: float
