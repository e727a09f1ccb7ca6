"""Audit entries, the names of audited actions, and the port of the audit log."""

from datetime import datetime
from typing import Annotated, Protocol

from pydantic import AfterValidator, StringConstraints
from pydantic import Field as PydanticField
from sqlalchemy import BigInteger, Column, Identity, Index
from sqlmodel import Field, SQLModel

from shopassist.db.columns import timestamp_column
from shopassist.text import USER_ID_LENGTH, validate_text

ACT_LENGTH = 64
ADJUST_CREDITS = "adjust_credits"
READ_CONSENTS = "read_consents"
READ_AUDIT = "read_audit"
PUBLISH_NOTICE = "publish_notice"
EXPORT_USER = "export_user"
ERASE_USER = "erase_user"
READ_ROLLOUT = "read_rollout"
TURN_ROLLOUT = "turn_rollout"

REASON_LENGTH = 500

REQUEST_ID_LENGTH = 64


class AdminAct(SQLModel, table=True):
    """An action of an administrator or operator. Entries never change.

    `act` is the name of the action; `target` the affected user or object, null if it affects all users.
    """

    __tablename__ = "admin_audit"
    __table_args__ = (
        Index("ix_admin_audit_actor_id", "actor", "id"),
        Index("ix_admin_audit_target_id", "target", "id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    timestamp: datetime = timestamp_column()
    actor: str = Field(max_length=USER_ID_LENGTH)
    act: str = Field(max_length=ACT_LENGTH)
    target: str | None = Field(default=None, max_length=USER_ID_LENGTH)
    reason: str | None = Field(default=None, max_length=REASON_LENGTH)
    request_id: str | None = Field(default=None, max_length=REQUEST_ID_LENGTH)


Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=REASON_LENGTH), AfterValidator(validate_text)
]
AccessReason = Annotated[Reason, PydanticField(description="Why you look; kept in the audit.")]


class AdminAudit(Protocol):
    """Port of the audit log. Entries are only added."""

    async def record(self, entry: AdminAct) -> None: ...

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        """Return entries, newest first, by `actor` and about `target` if given; with `before_id` older ones."""


class AuditRepositories(Protocol):
    """Repositories of the audit log within a unit of work."""

    @property
    def admin_audit(self) -> AdminAudit: ...
