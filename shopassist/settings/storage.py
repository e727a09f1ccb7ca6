"""Where state is kept."""

from enum import StrEnum

from pydantic import Field

from shopassist.settings.group import Group


class Storage(StrEnum):
    """Where state is kept."""

    POSTGRES = "postgres"
    MEMORY = "memory"


class StorageSettings(Group):
    """Which twin keeps the state."""

    storage: Storage = Field(default=Storage.POSTGRES, alias="STORAGE")
