"""Assignment of users to storages, and the models of the rollout API."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from shopassist.settings import Storage

ASSIGNMENT_STEPS = 10_000
"""The percentage is applied in steps of a hundredth of a percent."""


@dataclass(slots=True)
class Assignment:
    """The share of users that PostgreSQL holds: `percent`, from 0 to 100.

    `is_shadowing`: each call is repeated on the other storage and the results are compared. `is_back`: all users were
    sent back to memory, and nothing waits for PostgreSQL.
    """

    percent: float = 0.0
    is_shadowing: bool = False
    is_back: bool = False

    @property
    def uses_postgres(self) -> bool:
        """Whether any user is assigned to PostgreSQL."""
        return self.percent > 0 and not self.is_back

    def get_storage(self, user_id: str) -> Storage:
        """Return the assigned storage. A user in PostgreSQL at one percentage is there at every higher one."""
        step = int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big") % ASSIGNMENT_STEPS
        is_in = self.uses_postgres and step < self.percent * ASSIGNMENT_STEPS / 100
        return Storage.POSTGRES if is_in else Storage.MEMORY


class RolloutPercent(BaseModel):
    """The percentage to set."""

    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="Share of users, in PostgreSQL.")]


class Unmirrored(BaseModel):
    """A user with a last change in PostgreSQL that may be missing in memory, and since when."""

    user_id: str
    since: datetime


class RolloutSide(BaseModel):
    """One storage: its users, the calls that it was asked, and those that it did not answer."""

    users: int
    asked: int
    failed: int
    moved_here: int
    moves_failed: int


class RolloutStatus(BaseModel):
    """The state of a rollout; counts are since this process started.

    `to_move`: users who are not yet in their assigned storage. `is_back`: all were sent back to memory at once.
    `is_overtaken`: another server runs a rollout on this database as well.
    """

    percent: float
    is_back: bool
    is_shadowing: bool
    is_overtaken: bool
    memory: RolloutSide
    postgres: RolloutSide
    to_move: int
    compared: int
    differences: dict[str, int]
    shadow_failures: int
    unmirrored: list[Unmirrored]
