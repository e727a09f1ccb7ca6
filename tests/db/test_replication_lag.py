"""Replication lag from one clock and the WAL positions of both servers."""

from datetime import UTC, datetime

import pytest

from shopassist.db.replica import MAX_WAL_MARKS, ReplicationLag


class Clock:
    """A clock in seconds that is moved by the test."""

    now = 100.0

    def __call__(self) -> float:
        """Return its time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return the clock of `lag`."""
    return Clock()


@pytest.fixture
def lag(clock: Clock) -> ReplicationLag:
    """Build a lag without measurements."""
    return ReplicationLag(clock)


def look(lag: ReplicationLag, clock: Clock, primary: int | None, replica: int | None, seconds: float = 1.0) -> None:
    """Let time pass and poll both servers that answer."""
    clock.now += seconds
    if primary is not None:
        lag.record_primary(primary, clock.now)
    if replica is not None:
        lag.record_replica(replica)


def test_nothing_is_known_until_the_replica_is_where_the_primary_was(lag: ReplicationLag, clock: Clock) -> None:
    """A replica that catches up is not believed before it has."""
    for position in (10, 20, 30):
        look(lag, clock, 100, position)
        assert lag.seconds is None
    look(lag, clock, 100, 100)
    assert lag.seconds == 0


def test_an_idle_primary_makes_no_lag(lag: ReplicationLag, clock: Clock) -> None:
    """Where nothing happens, nothing is missing, for however long."""
    for _ in range(MAX_WAL_MARKS + 10):
        look(lag, clock, 100, 100)
    assert lag.seconds == 0


def test_lag_is_the_time_since_the_primary_was_there(lag: ReplicationLag, clock: Clock) -> None:
    """Ten seconds behind is ten seconds, and none once it has caught up."""
    for second in range(30):
        look(lag, clock, second, second - 10)
    assert lag.seconds == 10
    look(lag, clock, None, 30)
    assert lag.seconds == 1


def test_without_a_primary_nobody_knows_so_it_grows(lag: ReplicationLag, clock: Clock) -> None:
    """The replica may have all there is; what it may lack is from after the primary was last seen."""
    look(lag, clock, 100, 100)
    before = datetime.now(UTC)
    for _ in range(7):
        look(lag, clock, None, 100)
    assert lag.seconds == 7
    assert lag.as_of is not None
    assert lag.as_of <= before


def test_after_a_promotion_old_marks_mean_nothing(lag: ReplicationLag, clock: Clock) -> None:
    """The new primary has less than the old one had; a replica that has all of it is not behind."""
    look(lag, clock, 100, 90)
    look(lag, clock, 95, 90)
    assert lag.seconds is None
    look(lag, clock, 95, 95)
    assert lag.seconds == 0


def test_a_replica_that_never_answers_costs_no_memory(lag: ReplicationLag, clock: Clock) -> None:
    """Marks are bounded, and the lag of one that comes back is still told true."""
    look(lag, clock, 0, 0)
    for position in range(2 * MAX_WAL_MARKS):
        look(lag, clock, position, None)
    assert lag.seconds == 2 * MAX_WAL_MARKS
    look(lag, clock, None, 2 * MAX_WAL_MARKS)
    assert lag.seconds == 1
