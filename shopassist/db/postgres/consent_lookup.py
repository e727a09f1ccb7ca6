"""What is asked about consent on the way of a question, in PostgreSQL: concurrent look-ups share a statement."""

from collections.abc import Sequence

from sqlalchemy import text

from shopassist.db.coalescer import Coalescer
from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres.driver import fetch
from shopassist.db.postgres.notices import PUBLISHED, published
from shopassist.models.consent_history import Agreement, Subject
from shopassist.models.notice import PublishedNotice

AGREEMENTS = text("""
SELECT asked.user_id, asked.is_guest, asked.purpose, newest.granted, n.version
FROM unnest(CAST(:user_ids AS text[]), CAST(:guests AS boolean[]), CAST(:purposes AS text[]))
     AS asked (user_id, is_guest, purpose)
CROSS JOIN LATERAL (
    SELECT e.granted, e.notice_id FROM consent_events e
    WHERE e.user_id = asked.user_id AND e.is_guest = asked.is_guest AND e.purpose = asked.purpose
    ORDER BY e.id DESC LIMIT 1
) AS newest
LEFT JOIN consent_notices n ON n.id = newest.notice_id
""")

Asked = tuple[Subject, str]


class PostgresConsentLookup:
    """Implements `ConsentLookup`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """The database's clock decides unless `clock` binds an instant."""
        self._manager = manager
        self._clock = clock
        self._agreements = Coalescer(self._read)

    async def published(self) -> list[PublishedNotice]:
        rows = await fetch(self._manager, PUBLISHED, repeatable=True, instant=self._clock.instant())
        return [published(row) for row in rows]

    async def agreement(self, subject: Subject, purpose: str) -> Agreement | None:
        return await self._agreements.submit((subject, purpose))

    async def _read(self, asked: Sequence[Asked]) -> list[Agreement | None]:
        distinct = list(set(asked))
        rows = await fetch(
            self._manager,
            AGREEMENTS,
            repeatable=True,
            user_ids=[subject.user_id for subject, _ in distinct],
            guests=[subject.is_guest for subject, _ in distinct],
            purposes=[purpose for _, purpose in distinct],
        )
        found = {
            (Subject(row["user_id"], row["is_guest"]), row["purpose"]): Agreement(row["granted"], row["version"])
            for row in rows
        }
        return [found.get(each) for each in asked]
