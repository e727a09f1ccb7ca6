"""Leases: which process does the work that only one may do."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from shopassist.models.columns import Timestamp


class Lease(SQLModel, table=True):
    """`holder` has the work `name` to itself until `expires_at`."""

    __tablename__ = "leases"

    name: str = Field(primary_key=True, max_length=64)
    holder: str = Field(max_length=64)
    expires_at: datetime = Field(sa_type=Timestamp)
