"""What becomes of a decision: an event in the history, if it changes anything, and the record kept in step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shopassist.db.ports import Repositories
from shopassist.models import ConsentEvent
from shopassist.models.consent_history import ConsentSource, Origin, Subject
from shopassist.models.notice import MARKETING, TERMS

SIGNALLED = MARKETING
"""The purpose that Global Privacy Control says no to."""

RECORDED = {TERMS: "terms_accepted", MARKETING: "marketing_consent"}
"""The purposes that the consent record shows, and where."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A yes or no to a purpose, and the text that was shown."""

    purpose: str
    granted: bool
    notice_id: int | None = None


async def changed(
    work: Repositories, subject: Subject, wishes: Sequence[Wish], origin: Origin
) -> tuple[dict[str, ConsentEvent], list[ConsentEvent]]:
    """The state after `wishes`, and those that are news and were appended; a registered user's record says the same.

    The browser's signal, where there is one, comes first.
    """
    await work.consent_history.lock(subject)
    state = await work.consent_history.state(subject)
    events: dict[str, ConsentEvent] = {}
    if origin.privacy_signal and is_granted(state, SIGNALLED):
        events[SIGNALLED] = event_of(subject, Wish(SIGNALLED, granted=False), signalled(origin))
    for wish in wishes:
        if differs({**state, **events}.get(wish.purpose), wish):
            events[wish.purpose] = event_of(subject, wish, origin)
    if not events:
        return state, []
    stored = await work.consent_history.append(list(events.values()))
    flags = {RECORDED[event.purpose]: event.granted for event in stored if event.purpose in RECORDED}
    if flags and not subject.is_guest:
        await work.consents.update_consent(subject.user_id, **flags)
    return {**state, **{event.purpose: event for event in stored}}, stored


def differs(event: ConsentEvent | None, wish: Wish) -> bool:
    """Whether a wish is news: another answer, or the same about another text."""
    if event is None or event.granted != wish.granted:
        return True
    return wish.granted and wish.notice_id is not None and wish.notice_id != event.notice_id


def is_granted(state: Mapping[str, ConsentEvent], purpose: str) -> bool:
    """Whether the purpose is agreed to."""
    return purpose in state and state[purpose].granted


def event_of(subject: Subject, wish: Wish, origin: Origin) -> ConsentEvent:
    """The event of a wish."""
    return ConsentEvent(
        user_id=subject.user_id,
        is_guest=subject.is_guest,
        purpose=wish.purpose,
        granted=wish.granted,
        notice_id=wish.notice_id,
        source=origin.source.value,
        route=origin.route,
        request_id=origin.request_id,
    )


def signalled(origin: Origin) -> Origin:
    """The origin of what the browser's signal says on the same request."""
    return Origin(ConsentSource.PRIVACY_SIGNAL, origin.route, origin.request_id, privacy_signal=True)
