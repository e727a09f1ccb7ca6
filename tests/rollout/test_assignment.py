"""Assignment of users to storages by percentage."""

import pytest

from shopassist.rollout.models import Assignment
from shopassist.settings import Storage

USERS = [f"auth0|{number}" for number in range(10_000)]


@pytest.mark.parametrize("percent", [0, 0.5, 10, 50, 99, 100])
def test_the_share_of_users_matches_the_percentage(percent: float) -> None:
    """Within 2 % for ten thousand users, and exactly at 0 and 100."""
    assigned = sum(Assignment(percent).get_storage(user_id) is Storage.POSTGRES for user_id in USERS)
    assert abs(assigned / len(USERS) - percent / 100) < (0.02 if 0 < percent < 100 else 1e-9)


def test_users_stay_assigned_at_higher_percentages() -> None:
    """A user in PostgreSQL at one percentage is there at every higher one, and leaves in the reverse order."""
    before: set[str] = set()
    for percent in (1, 5, 20, 60, 100):
        assigned = {user_id for user_id in USERS if Assignment(percent).get_storage(user_id) is Storage.POSTGRES}
        assert before < assigned
        before = assigned


def test_back_assigns_all_users_to_memory() -> None:
    """At any percentage."""
    assert all(Assignment(100, is_back=True).get_storage(user_id) is Storage.MEMORY for user_id in USERS)
