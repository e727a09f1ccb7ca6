"""Notices and the audit log in both storages."""

import asyncio
import hashlib

import pytest
from pydantic import ValidationError

from containers import Container
from shopassist.api.headers import encode_cursor
from shopassist.audit.models import READ_AUDIT, AdminAct
from shopassist.audit.routes import AuditQuery, read_entries
from shopassist.consent.models import ConsentNotice, NoticePublication, canonicalize_locale
from shopassist.consent.notices import PublishedNoticeCache
from shopassist.credits.models import CreditAdjustment
from shopassist.errors import InvalidInputError, NotFoundError, NoticeExistsError, OverdrawError
from tests.support.helpers import FixedClock

OPERATOR = "operator:root-user"


def text(words: str, locale: str = "en", purpose: str = "terms", **more: float) -> NoticePublication:
    """Return a text to publish."""
    return NoticePublication.model_validate({"purpose": purpose, "locale": locale, "text": words, **more})


async def publish(container: Container, publication: NoticePublication) -> ConsentNotice:
    """Publish as the operator."""
    return await container.notice_service().publish(publication, OPERATOR, "new terms")


async def acts(container: Container) -> list[tuple[str, str, str | None, str | None]]:
    """Return actor, action, target and reason of the audit entries, newest first, without this read."""
    found = await read_entries(container.unit_of_work(), AuditQuery(limit=100), AdminAct(actor="test", act=READ_AUDIT))
    return [(act.actor, act.act, act.target, act.reason) for act in found if act.actor != "test"]


async def test_a_notice_is_stored_unchanged(container: Container, clock: FixedClock) -> None:
    """The text is stored unchanged with the SHA-256 of its UTF-8, and an audit entry is written."""
    words = "Terms of ₹10\r\n\ttwo  spaces \n"
    notice = await publish(container, text(words))
    assert (notice.version, notice.sha256) == (1, hashlib.sha256(words.encode()).hexdigest())
    assert (notice.published_at, notice.binding_from) == (clock.time, clock.time)
    assert (await container.notice_service().get_notice(notice.id or 0)).text == words
    assert await acts(container) == [(OPERATOR, "publish_notice", "terms 1 en", "new terms")]


async def test_versions_and_translations(container: Container, clock: FixedClock) -> None:
    """Only the next version and translations of the newest are accepted; a translation is binding with its version."""
    await publish(container, text("one"))
    second = await publish(container, text("two", grace_hours=5))
    assert (second.version, (second.binding_from - clock.time).total_seconds()) == (2, 5 * 3600)
    clock.move(hours=1)
    hindi = await publish(container, text("do", "hi", version=2))
    assert (hindi.version, hindi.binding_from) == (2, second.binding_from)
    for wrong in (1, 4):
        with pytest.raises(InvalidInputError):
            await publish(container, text("x", version=wrong))
    with pytest.raises(NoticeExistsError):
        await publish(container, text("another two", version=2))
    with pytest.raises(InvalidInputError, match="users need not be asked again"):
        await publish(container, text("two", version=3))
    other = await publish(container, text("one", purpose="marketing"))
    assert other.version == 1
    assert len(await container.notice_service().list_notices()) == 4


async def test_publishing_again_changes_nothing(container: Container) -> None:
    """A repeated command creates no second version and no second audit entry."""
    first = await publish(container, text("one"))
    assert await publish(container, text("one")) == first
    assert await publish(container, text("one", version=1)) == first
    assert len(await acts(container)) == 1


async def test_publishing_at_the_same_time(container: Container) -> None:
    """Eight concurrent texts become eight versions."""
    notices = await asyncio.gather(*[publish(container, text(f"text {n}")) for n in range(8)])
    assert sorted(notice.version for notice in notices) == [*range(1, 9)]


async def test_the_current_text_in_the_requested_language(container: Container) -> None:
    """The newest version is returned in the first available requested language, else in its first one."""
    for locale, words in (("en", "old"), ("hi", "purana")):
        await publish(container, text(words, locale, version=1))
    for locale, words in (("en-IN", "new"), ("hi", "naya"), ("zh-Hant-TW", "xin")):
        await publish(container, text(words, locale, version=2))
    await publish(container, text("may we write to you?", purpose="marketing"))

    async def words_in(*locales: str) -> list[str]:
        return [notice.text for notice in await container.notice_service().get_current(locales)]

    assert await words_in() == ["may we write to you?", "new"]
    assert await words_in("hi-IN") == ["may we write to you?", "naya"]
    assert await words_in("fr", "zh") == ["may we write to you?", "xin"]
    assert await words_in("fr", "EN-in") == ["may we write to you?", "new"]
    assert await words_in("h", "x-y-z", "") == ["may we write to you?", "new"]
    with pytest.raises(NotFoundError):
        await container.notice_service().get_notice(10**6)


@pytest.mark.parametrize("tag", ["hi", "HI", "en-in", "ZH-hant-tw", "es-419", "sr-latn"])
def test_language_tags_are_canonical(tag: str) -> None:
    """Any letter case is accepted."""
    assert canonicalize_locale(tag).lower() == tag.lower()
    assert canonicalize_locale(tag.upper()) == canonicalize_locale(tag.lower())


@pytest.mark.parametrize(
    "wrong",
    [
        {"purpose": "Terms"},
        {"purpose": ""},
        {"locale": "english"},
        {"locale": "en_IN"},
        {"text": ""},
        {"text": "a\x00b"},
        {"text": "\ud800"},
        {"version": 0},
        {"grace_hours": -1},
        {"grace_hours": float("nan")},
    ],
    ids=str,
)
def test_what_cannot_be_published(wrong: dict[str, object]) -> None:
    """Invalid names, tags and texts are refused."""
    with pytest.raises(ValidationError):
        NoticePublication.model_validate({"purpose": "terms", "locale": "en", "text": "x", **wrong})


async def test_the_notice_cache_expires_after_two_seconds() -> None:
    """The database is read once in two seconds, and again at once after a failure."""
    now, asked = 100.0, 0

    async def read() -> list[object]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise ConnectionError
        return []

    published = PublishedNoticeCache(read, lambda: now)  # type: ignore[arg-type]
    for _ in range(3):
        await published.get()
    assert asked == 1
    now += 2
    with pytest.raises(ConnectionError):
        await published.get()
    await published.get()
    await published.get()
    assert asked == 3
    published.invalidate()
    await published.get()
    assert asked == 4


async def test_adjustments_are_in_the_audit(container: Container, clock: FixedClock) -> None:
    """One entry for each change of an account; none for a refused or repeated adjustment."""
    await container.credit_service().get_user_credits("user")
    service = container.adjustment_service()
    for _ in range(2):
        await service.adjust("user", CreditAdjustment(amount=5, reason="a gift"), "auth0|admin", "key", "request-1")
    with pytest.raises(OverdrawError):
        await service.adjust("user", CreditAdjustment(amount=-1000, reason="too much"), "auth0|admin")
    [act] = await read_entries(container.unit_of_work(), AuditQuery(), AdminAct(actor="test", act=READ_AUDIT))
    assert (act.actor, act.act, act.target, act.reason) == ("auth0|admin", "adjust_credits", "user", "a gift")
    assert (act.timestamp, act.request_id) == (clock.time, "request-1")


async def test_reading_the_records_is_in_the_audit(container: Container) -> None:
    """The entry has the reader and the reason; internal reads write none."""
    await container.consent_service().list_consents()
    assert await acts(container) == []
    await container.consent_service().list_consents(10, None, AdminAct(actor="a", act="read_consents", reason="DPO"))
    assert await acts(container) == [("a", "read_consents", None, "DPO")]


async def test_the_audit_in_pages_and_by_user(container: Container) -> None:
    """Entries are newest first, in pages, filtered by actor or target; each read is recorded."""
    for number in range(5):
        async with container.unit_of_work()() as work:
            await work.admin_audit.record(AdminAct(actor=f"a{number % 2}", act="x", target=f"t{number}"))

    async def read(limit: int = 10, **query: str) -> list[AdminAct]:
        looking = AdminAct(actor="auditor", act=READ_AUDIT)
        return (await read_entries(container.unit_of_work(), AuditQuery(limit=limit, **query), looking))[:limit]

    first = await read(3)
    second = await read(3, cursor=encode_cursor(str(first[-1].id)))
    assert [act.target for act in (*first, *second)] == ["t4", "t3", "t2", "t1", "t0"]
    assert [act.target for act in await read(actor="a1")] == ["t3", "t1"]
    assert [act.actor for act in await read(target="t2")] == ["a0"]
    assert [act.act for act in await read(actor="auditor")] == [READ_AUDIT] * 4
