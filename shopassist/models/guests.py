"""Guests: how many new ones came from where, and what a new one is told."""

import datetime as dt

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from shopassist.models.credits import HASH_LENGTH, UserCreditStatus


class GuestNetwork(SQLModel, table=True):
    """New guest accounts of one client network in one day (UTC). The network is a keyed hash, never an address."""

    __tablename__ = "guest_networks"
    __table_args__ = (CheckConstraint("accounts >= 0", name="ck_guest_networks_accounts"),)

    day: dt.date = Field(primary_key=True)
    network: str = Field(primary_key=True, max_length=HASH_LENGTH)
    accounts: int


class GuestSession(UserCreditStatus):
    """A session of a new guest; `session_id` is sent back as `X-Session-ID` and is the guest's secret."""

    session_id: str
