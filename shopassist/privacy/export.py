"""Export the personal data of a user as JSON, one page of rows at a time."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import to_json

from shopassist.db.columns import utc_now
from shopassist.db.ports import Clock, UnitOfWork
from shopassist.errors import SessionRefusedError
from shopassist.privacy.models import EXPORT_FORMAT, EXPORT_VERSION
from shopassist.privacy.personal_data import PersonalDataTable, get_personal_data_tables
from shopassist.privacy.ports import PersonalDataReader, PrimaryKey, PrivacyRepositories
from shopassist.text import validate_user_id

PAGE_ROWS = 500
"""Rows of one page, which is what is in memory at a time."""


class ExportService:
    """Writes exports (`UserExport`)."""

    def __init__(
        self, personal_data: PersonalDataReader, unit_of_work: UnitOfWork[PrivacyRepositories], clock: Clock
    ) -> None:
        """`clock` stamps them."""
        self._personal_data = personal_data
        self._unit_of_work = unit_of_work
        self._clock = clock

    async def export(self, user_id: str, is_guest: bool | None) -> AsyncIterator[bytes]:
        """The parts of a JSON document. `is_guest` is None where only the account can tell.

        Raises `SessionRefusedError` for a guest who names a registered account, before there is a first part.
        """
        validate_user_id(user_id)
        account = await self._unit_of_work.run(lambda work: work.credits.get_user_credits(user_id), repeatable=True)
        if is_guest is None:
            is_guest = account.is_guest if account else False
        if is_guest and account and not account.is_guest:
            raise SessionRefusedError
        return self._parts(user_id, is_guest, get_personal_data_tables(is_guest, account is not None))

    async def _parts(
        self, user_id: str, is_guest: bool, holdings: tuple[PersonalDataTable, ...]
    ) -> AsyncIterator[bytes]:
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

    async def _rows(self, holding: PersonalDataTable, user_id: str, is_guest: bool) -> AsyncIterator[bytes]:
        after: PrimaryKey | None = None
        while True:
            page = await self._personal_data.read_page(holding, user_id, is_guest, PAGE_ROWS, after)
            if page.rows:
                rows: list[dict[str, Any]] = page.rows
                yield (b"," if after else b"") + to_json(rows)[1:-1]
            if page.last is None:
                return
            after = page.last
