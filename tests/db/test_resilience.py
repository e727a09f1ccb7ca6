"""The circuit breaker and the policy around it, without a database."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from shopassist.db.circuit_breaker import FAILURE_THRESHOLD, OPEN_SECONDS, BreakerState, CircuitBreaker
from shopassist.db.failures import BusyError, ConnectionLostError, NotSentError, RolledBackError, SlowError
from shopassist.db.resilience import MAX_RETRY_BUDGET, Resilience, ResilienceLimits, limit_time
from shopassist.errors import IntegrityError, StorageUnavailableError

Operation = Callable[[], Awaitable[str]]


class Time:
    """A clock that is moved by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: CircuitBreaker, error: Exception, times: int = 1) -> None:
    """Let this many callers fail with this error."""
    for _ in range(times):
        with pytest.raises(type(error)), breaker.guard():
            raise error


def failing(*errors: Exception) -> tuple[Operation, list[int]]:
    """Return an operation that raises these errors in turn and then works, and the list of its calls."""
    calls: list[int] = []

    async def operation() -> str:
        calls.append(len(calls))
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "done"

    return operation, calls


def at_once(_: float, __: float) -> float:
    """No pause."""
    return 0.0


def test_it_opens_after_failures_in_a_row_and_closes_after_one_success() -> None:
    """A success in between resets the count; while it is open no call gets through."""
    time = Time()
    breaker = CircuitBreaker(monotonic=time)

    def shown() -> BreakerState:
        return breaker.state

    fail(breaker, NotSentError(), FAILURE_THRESHOLD - 1)
    with breaker.guard():
        pass
    fail(breaker, NotSentError(), FAILURE_THRESHOLD)
    assert shown() is BreakerState.OPEN
    with pytest.raises(StorageUnavailableError), breaker.guard():
        pytest.fail("let through")
    time.now += OPEN_SECONDS
    assert shown() is BreakerState.HALF_OPEN
    with breaker.guard():
        assert shown() is BreakerState.OPEN  # for everybody else
    assert shown() is BreakerState.CLOSED
    assert breaker.times_opened == 1


async def test_half_open_lets_one_of_fifty_through() -> None:
    """Exactly one probe is let through; its failure keeps the breaker open for another period."""
    time = Time()
    breaker = CircuitBreaker(monotonic=time)
    fail(breaker, NotSentError(), FAILURE_THRESHOLD)
    time.now += OPEN_SECONDS
    let_through = 0

    async def caller() -> None:
        nonlocal let_through
        with breaker.guard():
            let_through += 1
            await asyncio.sleep(0.01)
            raise NotSentError

    await asyncio.gather(*(caller() for _ in range(50)), return_exceptions=True)
    assert let_through == 1
    assert breaker.state is BreakerState.OPEN


async def test_a_probe_that_is_cancelled_gives_its_place_back() -> None:
    """The next caller is the probe."""
    time = Time()
    breaker = CircuitBreaker(monotonic=time)
    fail(breaker, NotSentError(), FAILURE_THRESHOLD)
    time.now += OPEN_SECONDS

    async def probe() -> None:
        with breaker.guard():
            await asyncio.sleep(60)

    task = asyncio.create_task(probe())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with breaker.guard():
        pass
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("error", [IntegrityError(), BusyError(), RolledBackError(), ValueError()])
def test_what_the_database_says_no_to_is_no_failure_of_it(error: Exception) -> None:
    """However often: it answered."""
    breaker = CircuitBreaker()
    fail(breaker, error, 20)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("error", "repeatable", "attempts"),
    [
        (OSError(), False, 3),
        (asyncpg.DeadlockDetectedError(""), False, 3),
        (asyncpg.SerializationError(""), False, 3),
        (asyncpg.CannotConnectNowError(""), False, 3),
        (asyncpg.TooManyConnectionsError(""), False, 3),
        (ConnectionLostError(), False, 1),
        (ConnectionLostError(), True, 3),
        (TimeoutError(), True, 1),
        (asyncpg.LockNotAvailableError(""), True, 1),
        (asyncpg.QueryCanceledError(""), True, 1),
        (asyncpg.DiskFullError(""), True, 1),
        (asyncpg.ReadOnlySQLTransactionError(""), False, 3),
    ],
)
async def test_only_what_left_nothing_behind_is_done_again(error: Exception, repeatable: bool, attempts: int) -> None:
    """Up to `DB_RETRY_ATTEMPTS` times; every known database error becomes `StorageUnavailableError`."""
    operation, calls = failing(*[error] * 9)
    with pytest.raises(StorageUnavailableError):
        await Resilience(pause=at_once).run(operation, repeatable)
    assert len(calls) == attempts


async def test_one_failure_is_not_seen_by_the_caller() -> None:
    """The second attempt answers."""
    operation, calls = failing(asyncpg.DeadlockDetectedError(""))
    policy = Resilience(pause=at_once)
    assert await policy.run(operation) == "done"
    assert len(calls) == 2
    assert policy.get_counters()["retries"] == 1


async def test_retries_grow_load_by_a_tenth_at_the_most() -> None:
    """Beyond its budget a failure is told at once."""
    policy, calls = Resilience(pause=at_once), 0
    requests = 200

    async def operation() -> str:
        nonlocal calls
        calls += 1
        raise asyncpg.DeadlockDetectedError("")

    for _ in range(requests):
        with pytest.raises(RolledBackError):
            await policy.run(operation)
    assert calls - requests <= MAX_RETRY_BUDGET + requests / 10
    assert policy.get_counters()["retries_refused"]


async def test_pauses_are_drawn_from_bounds_that_double() -> None:
    """Full jitter: from 0 to the bound."""
    bounds: list[tuple[float, float]] = []

    def pause(least: float, most: float) -> float:
        bounds.append((least, most))
        return 0.0

    operation, _ = failing(*[OSError()] * 2)
    await Resilience(ResilienceLimits(attempts=3), pause).run(operation)
    assert [least for least, _ in bounds] == [0, 0]
    assert bounds[1][1] == 2 * bounds[0][1]


async def test_retries_end_with_their_time() -> None:
    """`DB_RETRY_TIMEOUT`: what would pause beyond it is told at once."""
    operation, calls = failing(*[OSError()] * 9)
    with pytest.raises(StorageUnavailableError):
        await Resilience(ResilienceLimits(attempts=9, retry_seconds=0.01), lambda _, __: 0.02).run(operation)
    assert len(calls) == 1


def test_a_wait_is_bounded_by_the_request_and_short_after_one_in_vain() -> None:
    """It ends with the request's time limit; after a pool time-out others wait 0.4 s or less."""
    policy = Resilience()
    with limit_time(0.3), policy.limit_wait() as seconds:
        assert seconds <= 0.3
    with pytest.raises(TimeoutError), policy.limit_wait():
        raise TimeoutError
    with policy.limit_wait() as seconds:
        assert seconds <= 0.4
    with policy.limit_wait() as seconds:
        assert seconds == ResilienceLimits().wait_seconds


async def test_units_of_requests_are_cut_short_when_the_database_goes() -> None:
    """Requests do not wait for an unavailable database; work that serves no request continues."""
    policy = Resilience()
    ended: list[str] = []

    async def unit(name: str) -> None:
        with policy.limit_unit(lambda: ended.append(name)):
            await asyncio.sleep(0.5)

    async def request() -> None:
        with limit_time(30):
            await unit("request")

    tasks = [asyncio.create_task(request()), asyncio.create_task(unit("job"))]
    await asyncio.sleep(0.01)
    fail(policy.breaker, NotSentError(), FAILURE_THRESHOLD)
    await asyncio.gather(*tasks)
    assert ended == ["request"]


LIMITS = ResilienceLimits(probe_seconds=0.05, work_seconds=0.15)


def build_policy(answer: Callable[[], Awaitable[frozenset[int] | None]]) -> Resilience:
    """Return a policy whose server gives this answer to probes."""
    policy = Resilience(LIMITS)
    policy.ask_server = answer
    return policy


async def work(policy: Resilience, seconds: float, pid: int | None = None) -> None:
    """Wait for the server as long, in the way of a statement."""
    limit = asyncio.timeout(None)
    with policy.breaker.guard(), policy.watch(lambda: limit.reschedule(0)) as watch:
        watch.pid = pid
        async with limit:
            await asyncio.sleep(seconds)


async def at_work() -> frozenset[int]:
    """Answer that the server process 7 is at work."""
    return frozenset({7})


async def silent() -> None:
    """Do not answer."""
    await asyncio.sleep(60)


async def gone() -> None:
    """Refuse connections, as a server does that was stopped."""
    raise ConnectionRefusedError


async def full() -> None:
    """Refuse the connection as one too many."""
    raise asyncpg.TooManyConnectionsError


@pytest.mark.parametrize("answer", [at_work, full])
async def test_slow_work_is_no_outage(answer: Callable[[], Awaitable[frozenset[int] | None]]) -> None:
    """While the server answers, work may take longer; what takes too long fails alone, however often."""
    policy = build_policy(answer)
    await work(policy, 0.1, 7)
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(SlowError):
            await work(policy, 60, 7)
    assert policy.is_available


@pytest.mark.parametrize("answer", [silent, gone])
async def test_an_unanswered_probe_is_an_outage(answer: Callable[[], Awaitable[frozenset[int] | None]]) -> None:
    """The first one opens the breaker, and ends all work that waits for the server."""
    policy = build_policy(answer)
    tasks = [asyncio.create_task(work(policy, 60)) for _ in range(5)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {ConnectionLostError}
    assert policy.breaker.state is BreakerState.OPEN
    assert policy.breaker.times_opened == 1


async def test_callers_share_a_probe() -> None:
    """The server gets one question, however many wait for it."""
    asked = 0

    async def answer() -> frozenset[int]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.02)
        return frozenset({7})

    policy = build_policy(answer)
    await asyncio.gather(*(work(policy, 0.1, 7) for _ in range(20)))
    assert asked == 1


async def test_work_that_the_server_does_not_know_is_lost() -> None:
    """The connection broke without a sign: its work fails at once, and other connections are not trusted either."""
    policy, lost = build_policy(at_work), []
    policy.on_lost = lambda: lost.append(True)
    with pytest.raises(ConnectionLostError) as caught:
        await work(policy, 60, 8)
    assert type(caught.value) is ConnectionLostError
    assert lost
    assert policy.is_available


async def test_work_that_ends_during_the_probe_is_not_lost() -> None:
    """The server rightly does not list it any more, and no connection is given up."""

    async def answer() -> frozenset[int]:
        await asyncio.sleep(0.04)
        return frozenset()

    policy, lost = build_policy(answer), []
    policy.on_lost = lambda: lost.append(True)
    await work(policy, 0.07, 8)
    await asyncio.sleep(0.05)
    assert not lost
