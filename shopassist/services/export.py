"""Everything held of a person, a page at a time: nothing is kept open between two pages, however long they take."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import to_json

from shopassist.db.ports import Clock, UnitOfWork
from shopassist.db.privacy import Holdings, Key
from shopassist.errors import SessionRefusedError
from shopassist.models.columns import utc_now
from shopassist.models.export import EXPORT_FORMAT, EXPORT_VERSION
from shopassist.models.holdings import Holding, held_by
from shopassist.models.text import valid_user_id

PAGE = 500
"""Rows of one page, which is what is in memory at a time."""


class ExportService:
    """Writes exports (`UserExport`)."""

    def __init__(self, holdings: Holdings, unit_of_work: UnitOfWork, clock: Clock) -> None:
        """`clock` stamps them."""
        self._holdings = holdings
        self._unit_of_work = unit_of_work
        self._clock = clock

    async def export(self, user_id: str, is_guest: bool | None) -> AsyncIterator[bytes]:
        """The parts of a JSON document. `is_guest` is None where only the account can tell.

        Raises `SessionRefusedError` for a guest who names a registered account, before there is a first part.
        """
        valid_user_id(user_id)
        account = await self._unit_of_work.about(user_id).run(
            lambda work: work.credits.get_user_credits(user_id), repeatable=True
        )
        if is_guest is None:
            is_guest = account.is_guest if account else False
        if is_guest and account and not account.is_guest:
            raise SessionRefusedError
        return self._parts(user_id, is_guest, held_by(is_guest, account is not None))

    async def _parts(self, user_id: str, is_guest: bool, holdings: tuple[Holding, ...]) -> AsyncIterator[bytes]:
        head = {
            "format": EXPORT_FORMAT,
            "version": EXPORT_VERSION,
            "exported_at": self._clock.instant() or utc_now(),
            "user_id": user_id,
            "is_guest": is_guest,
        }
        yield to_json(head)[:-1] + b',"held":{'
        between = b""
        for holding in holdings:
            yield between + to_json(holding.name) + b":["
            async for rows in self._rows(holding, user_id, is_guest):
                yield rows
            yield b"]"
            between = b","
        yield b"}}\n"

    async def _rows(self, holding: Holding, user_id: str, is_guest: bool) -> AsyncIterator[bytes]:
        after: Key | None = None
        while True:
            page = await self._holdings.page(holding, user_id, is_guest, PAGE, after)
            if page.rows:
                rows: list[dict[str, Any]] = page.rows
                yield (b"," if after else b"") + to_json(rows)[1:-1]
            if page.last is None:
                return
            after = page.last
