"""Consent: what a registered user has agreed to."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from shopassist.models.columns import private_timestamp, timestamp
from shopassist.models.credits import USER_ID_LENGTH


class UserConsentCreate(SQLModel):
    """What a user sends to agree to the terms."""

    terms_accepted: bool = True
    marketing_consent: bool = False


class UserConsentUpdate(SQLModel):
    """What may be changed later; a field that is absent or null stays as it is."""

    marketing_consent: bool | None = None


class UserConsent(SQLModel, table=True):
    """The consent record of one user."""

    __tablename__ = "user_consents"

    user_id: str = Field(primary_key=True, max_length=USER_ID_LENGTH)
    terms_accepted: bool = True
    marketing_consent: bool = False
    timestamp: datetime = timestamp()
    updated_at: datetime = private_timestamp()
