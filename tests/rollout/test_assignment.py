"""The dial of a rollout."""

import pytest

from shopassist.rollout.models import Assignment
from shopassist.settings import Storage

PEOPLE = [f"auth0|{number}" for number in range(10_000)]


@pytest.mark.parametrize("percent", [0, 0.5, 10, 50, 99, 100])
def test_it_sends_that_share(percent: float) -> None:
    """Within what chance allows for ten thousand people, and exactly at both ends."""
    sent = sum(Assignment(percent).get_storage(who) is Storage.POSTGRES for who in PEOPLE)
    assert abs(sent / len(PEOPLE) - percent / 100) < (0.02 if 0 < percent < 100 else 1e-9)


def test_people_stay_where_they_were_sent() -> None:
    """Whoever is in PostgreSQL at some percentage is there at every higher one, and comes back in the reverse order."""
    before: set[str] = set()
    for percent in (1, 5, 20, 60, 100):
        sent = {who for who in PEOPLE if Assignment(percent).get_storage(who) is Storage.POSTGRES}
        assert before < sent
        before = sent


def test_back_is_everybody() -> None:
    """Whatever the dial says."""
    assert all(Assignment(100, is_back=True).get_storage(who) is Storage.MEMORY for who in PEOPLE)
