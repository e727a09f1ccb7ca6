"""Assigns a percentage of users to PostgreSQL, by the hash of their ids."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

STEPS = 10_000
"""People are told apart in hundredths of a percent."""


class Side(StrEnum):
    """Where somebody's state is."""

    MEMORY = "memory"
    POSTGRES = "postgres"


def get_step(user_id: str) -> int:
    """Where somebody stands on the dial, from 0: the same in every process, whatever the dial says."""
    return int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big") % STEPS


@dataclass(slots=True)
class Assignment:
    """`percent` of all people are to be in PostgreSQL, from 0 to 100.

    `is_shadowing`: what is asked of one side is asked of the other too, and the answers are compared. `is_back`: all
    were sent back to memory at once, and PostgreSQL is not waited for.
    """

    percent: float = 0.0
    is_shadowing: bool = False
    is_back: bool = False

    def wanted(self, user_id: str) -> Side:
        """Where somebody is to be. Whoever is in PostgreSQL at some percentage is there at every higher one."""
        is_in = not self.is_back and get_step(user_id) < self.percent * STEPS / 100
        return Side.POSTGRES if is_in else Side.MEMORY
