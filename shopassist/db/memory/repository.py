"""What every in-memory repository has."""

from typing import Any, TypeVar

from sqlmodel import SQLModel

from shopassist.db.memory.store import MemorySession, MemoryStore

Row = TypeVar("Row", bound=SQLModel)


class BaseRepository:
    """A repository speaks within one session; who opened the session commits it."""

    def __init__(self, session: MemorySession) -> None:
        """The store's clock decides."""
        self.session = session

    @property
    def store(self) -> MemoryStore:
        """The state behind the session."""
        return self.session.store

    async def commit(self) -> None:
        """Keep what was done."""
        self.session.commit()

    async def rollback(self) -> None:
        """Undo what was done."""
        self.session.rollback()


def copied(row: Row, **updates: Any) -> Row:
    """A row of its own, so that no caller holds the stored one."""
    values = {name: getattr(row, name) for name in type(row).model_fields}
    return type(row)(**{**values, **updates})
