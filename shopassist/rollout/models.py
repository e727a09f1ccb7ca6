"""Status and requests of the rollout API."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field


class RolloutPercent(BaseModel):
    """Where the dial is to stand."""

    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="Share of users, in PostgreSQL.")]


class Unmirrored(BaseModel):
    """Somebody whose last change in PostgreSQL memory may lack, and since when."""

    user_id: str
    since: datetime


class RolloutSide(BaseModel):
    """One side: users that are there, what was asked of it, and how often it did not answer."""

    users: int
    asked: int
    failed: int
    moved_here: int
    moves_failed: int


class RolloutStatus(BaseModel):
    """Where a rollout stands; counts are since this process began.

    `to_move`: users who are not yet where the dial wants them. `is_back`: all were sent back to memory at once.
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
