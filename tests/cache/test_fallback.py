"""What a process keeps for the time in which the database is away."""

from datetime import timedelta

import pytest

from shopassist.cache.models import StoredAnswer
from shopassist.cache.service import ENTRY_OVERHEAD_BYTES, REFRESH_SECONDS, StaleAnswers
from shopassist.query.models import Answer, Recommendation

DAY = timedelta(hours=24)
HOUR = timedelta(hours=1)


def answer(summary: str = "One phone fits.") -> Answer:
    """Return an answer with one product."""
    phone = Recommendation(title="Phone", price=10999, currency="INR", link="https://www.amazon.in/s?k=phone")
    return Answer(products=[phone], recommendations_summary=summary)


def stored(name: str, summary: str = "One phone fits.") -> StoredAnswer:
    """Return that answer as it is stored for a question."""
    return StoredAnswer(name, answer(summary).model_dump_json(), HOUR)


class Monotonic:
    """A clock that is moved."""

    def __init__(self) -> None:
        """Start at an arbitrary second."""
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the current second."""
        return self.seconds


def body(summary: str = "One phone fits.") -> bytes:
    """Return the same answer as JSON."""
    return answer(summary).model_dump_json().encode()


@pytest.fixture
def clock() -> Monotonic:
    """Return the clock of `memory`."""
    return Monotonic()


@pytest.fixture
def memory(clock: Monotonic) -> StaleAnswers:
    """Room for three answers."""
    return StaleAnswers(3, 2**20, DAY, HOUR, clock)


def test_a_new_answer_is_served_for_24_hours_and_not_longer(memory: StaleAnswers, clock: Monotonic) -> None:
    """The very answer, up to and including the last second; then it is gone."""
    memory.add_new(stored("a"), memory.epoch)
    clock.seconds += DAY.total_seconds()
    assert memory.find("a") == body()
    clock.seconds += 1
    assert memory.find("a") is None
    assert memory.status()["answers"] == 0


def test_what_the_database_gave_may_be_as_old_as_its_validity(memory: StaleAnswers, clock: Monotonic) -> None:
    """It is served for 23 hours, and finding it again does not make it younger than that."""
    memory.add_found("a", answer(), memory.epoch)
    clock.seconds += REFRESH_SECONDS
    memory.add_found("a", answer(), memory.epoch)
    clock.seconds += (DAY - HOUR).total_seconds()
    assert memory.find("a") == body()
    clock.seconds += 1
    assert memory.find("a") is None


def test_an_answer_that_came_in_its_place_is_taken_within_a_minute(memory: StaleAnswers, clock: Monotonic) -> None:
    """What another process settled anew takes the place of what was kept."""
    memory.add_new(stored("a", "old"), memory.epoch)
    clock.seconds += REFRESH_SECONDS
    memory.add_found("a", answer("new"), memory.epoch)
    assert memory.find("a") == body("new")


def test_the_hot_ones_stay(memory: StaleAnswers) -> None:
    """Of four, the one that was longest not asked for is given up."""
    for name in "abc":
        memory.add_new(stored(name), memory.epoch)
    memory.add_found("a", answer(), memory.epoch)
    memory.add_new(stored("d"), memory.epoch)
    assert [name for name in "abcd" if memory.find(name)] == ["a", "c", "d"]


def test_bytes_are_bounded() -> None:
    """However many answers are kept, they take no more than was allowed; one that is too large is not kept."""
    size = len(answer().model_dump_json()) + ENTRY_OVERHEAD_BYTES
    memory = StaleAnswers(100, 2 * size, DAY, HOUR)
    for name in "abcdef":
        memory.add_new(stored(name), memory.epoch)
    assert memory.status() == {"answers": 2, "bytes": 2 * size, "served": 0}
    memory.add_new(stored("f", "x" * 3 * size), memory.epoch)
    assert memory.find("f") is None


def test_nothing_that_was_read_before_a_clearing_is_kept_after_it(memory: StaleAnswers) -> None:
    """Neither what was there, nor what was on its way; the same epoch told again clears nothing."""
    before = memory.epoch
    memory.add_new(stored("a"), before)
    memory.set_epoch(7)
    memory.add_found("b", answer(), before)
    assert [memory.find("a"), memory.find("b")] == [None, None]
    memory.add_new(stored("c"), memory.epoch)
    memory.set_epoch(7)
    assert memory.find("c") == body()
