"""Consent records, consent events and notices in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, cast, func, insert, literal, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlmodel import col, select

from shopassist.consent.models import (
    ConsentEvent,
    ConsentNotice,
    ConsentSubject,
    LatestDecision,
    PublishedNotice,
    UserConsent,
)
from shopassist.db.batcher import Batcher
from shopassist.db.columns import Timestamp
from shopassist.db.database import BaseRepository, DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.statements import fetch

LOCK_NOTICES = text("SELECT pg_advisory_xact_lock(hashtextextended('shopassist.notices', 0))")

SELECT_PUBLISHED_NOTICES = text("""
SELECT id, purpose, version, locale, sha256, published_at, binding_from,
       binding_from <= COALESCE(CAST(:instant AS timestamptz), now()) AS is_binding
FROM consent_notices ORDER BY purpose, version, id
""")


class PostgresNoticeRepository(BaseRepository):
    """Implements `NoticeRepository`."""

    async def lock(self) -> None:
        await self.session.execute(LOCK_NOTICES)

    async def insert_notice(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        row = ConsentNotice
        version_binding_from = (
            select(func.min(col(row.binding_from)))
            .where(col(row.purpose) == notice.purpose, col(row.version) == notice.version)
            .scalar_subquery()
        )
        values = {
            **notice.model_dump(exclude={"id", "published_at", "binding_from"}),
            "published_at": self.now(),
            "binding_from": func.coalesce(version_binding_from, self.now() + timedelta(hours=grace_hours)),
        }
        statement = insert(row).values(values).returning(row)
        return (await self.session.execute(statement)).scalar_one()

    async def get_notice(self, notice_id: int) -> ConsentNotice | None:
        return await self.session.get(ConsentNotice, notice_id)

    async def get_notices(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        row = ConsentNotice
        statement = select(row).where(col(row.id).in_(notice_ids)).order_by(col(row.purpose), col(row.id))
        return list((await self.session.execute(statement)).scalars())

    async def list_published(self) -> list[PublishedNotice]:
        rows = await self.session.execute(SELECT_PUBLISHED_NOTICES, {"instant": self.clock.instant()})
        return [PublishedNotice(**row) for row in rows.mappings()]


class PostgresConsentRepository(BaseRepository):
    """Implements `ConsentRepository`."""

    async def get_consent(self, user_id: str) -> UserConsent | None:
        return await self.session.get(UserConsent, user_id)

    async def create_consent(self, consent: UserConsent) -> UserConsent:
        now = self.now()
        values = consent.model_dump(exclude={"timestamp"}) | {"timestamp": now, "updated_at": now}
        statement = insert(UserConsent).values(values).returning(UserConsent)
        return (await self.session.execute(statement)).scalar_one()

    async def update_consent(self, user_id: str, **updates: Any) -> UserConsent | None:
        statement = (
            update(UserConsent)
            .where(col(UserConsent.user_id) == user_id)
            .values(**updates, updated_at=self.now())
            .returning(UserConsent)
            .execution_options(populate_existing=True)
        )
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        statement = select(UserConsent).order_by(col(UserConsent.user_id)).limit(limit)
        if after_user_id is not None:
            statement = statement.where(col(UserConsent.user_id) > after_user_id)
        return list((await self.session.execute(statement)).scalars())


LOCK_SUBJECT = text("SELECT pg_advisory_xact_lock(hashtextextended('consent ' || CAST(:user_id AS text), 0))")


class PostgresConsentHistory(BaseRepository):
    """Implements `ConsentHistory`."""

    async def lock(self, subject: ConsentSubject) -> None:
        await self.session.execute(LOCK_SUBJECT, {"user_id": subject.user_id})

    async def get_latest_events(self, subject: ConsentSubject) -> dict[str, ConsentEvent]:
        event = ConsentEvent
        statement = (
            select(event)
            .where(_match_subject(subject))
            .ext(distinct_on(col(event.purpose)))
            .order_by(col(event.purpose).desc(), col(event.id).desc())
        )
        return {found.purpose: found for found in (await self.session.execute(statement)).scalars()}

    async def insert_events(self, events: Sequence[ConsentEvent]) -> list[ConsentEvent]:
        # now() is the start of the transaction, which may be before an event of a transaction that held the lock.
        instant = self.clock.instant()
        moment = func.clock_timestamp() if instant is None else cast(literal(instant), Timestamp)
        rows = [{**event.model_dump(exclude={"id", "timestamp"}), "timestamp": moment} for event in events]
        statement = insert(ConsentEvent).values(rows).returning(ConsentEvent)
        return sorted((await self.session.execute(statement)).scalars(), key=lambda event: event.id or 0)

    async def list_events(
        self, subject: ConsentSubject, limit: int, before_id: int | None = None
    ) -> list[ConsentEvent]:
        statement = (
            select(ConsentEvent).where(_match_subject(subject)).order_by(col(ConsentEvent.id).desc()).limit(limit)
        )
        if before_id is not None:
            statement = statement.where(col(ConsentEvent.id) < before_id)
        return list((await self.session.execute(statement)).scalars())


def _match_subject(subject: ConsentSubject) -> ColumnElement[bool]:
    return and_(col(ConsentEvent.user_id) == subject.user_id, col(ConsentEvent.is_guest) == subject.is_guest)


SELECT_LATEST_DECISIONS = text("""
SELECT newest.granted, n.version
FROM unnest(CAST(:user_ids AS text[]), CAST(:guests AS boolean[]), CAST(:purposes AS text[]))
     WITH ORDINALITY AS asked (user_id, is_guest, purpose, position)
LEFT JOIN LATERAL (
    SELECT e.granted, e.notice_id FROM consent_events e
    WHERE e.user_id = asked.user_id AND e.is_guest = asked.is_guest AND e.purpose = asked.purpose
    ORDER BY e.id DESC LIMIT 1
) AS newest ON true
LEFT JOIN consent_notices n ON n.id = newest.notice_id
ORDER BY asked.position
""")


class PostgresConsentLookup:
    """Implements `ConsentLookup`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """Without an instant of `clock` the database's clock decides."""
        self._manager = manager
        self._clock = clock
        self._decisions = Batcher(self._read)

    async def list_published(self) -> list[PublishedNotice]:
        rows = await fetch(self._manager, SELECT_PUBLISHED_NOTICES, repeatable=True, instant=self._clock.instant())
        return [PublishedNotice(**dict(row)) for row in rows]

    async def get_latest_decision(self, subject: ConsentSubject, purpose: str) -> LatestDecision | None:
        return await self._decisions.submit((subject, purpose))

    async def _read(self, requests: Sequence[tuple[ConsentSubject, str]]) -> list[LatestDecision | None]:
        rows = await fetch(
            self._manager,
            SELECT_LATEST_DECISIONS,
            repeatable=True,
            user_ids=[subject.user_id for subject, _ in requests],
            guests=[subject.is_guest for subject, _ in requests],
            purposes=[purpose for _, purpose in requests],
        )
        return [None if row["granted"] is None else LatestDecision(*row) for row in rows]
