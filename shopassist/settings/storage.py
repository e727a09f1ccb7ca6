"""Where state is kept."""

from enum import StrEnum

from pydantic import Field

from shopassist.settings.group import Group


class Storage(StrEnum):
    """Where state is kept. `rollout`: in memory, and of a share of users in PostgreSQL (`docs/rollout.md`)."""

    POSTGRES = "postgres"
    MEMORY = "memory"
    ROLLOUT = "rollout"


class StorageSettings(Group):
    """Which twin keeps the state, or both."""

    storage: Storage = Field(default=Storage.POSTGRES, alias="STORAGE")
    rollout_percent: float = Field(
        default=0, ge=0, le=100, allow_inf_nan=False, alias="ROLLOUT_PERCENT", description="of users, in PostgreSQL"
    )
    rollout_shadow: bool = Field(default=False, alias="ROLLOUT_SHADOW", description="asks both sides and compares")

    @property
    def is_one_process(self) -> bool:
        """Whether state is in the memory of the process that serves."""
        return self.storage is not Storage.POSTGRES

    @property
    def has_database(self) -> bool:
        """Whether state is in PostgreSQL, or may be."""
        return self.storage is not Storage.MEMORY
