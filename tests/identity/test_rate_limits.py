"""Counting requests, in windows of a minute."""

import time

from shopassist.identity.caller import Caller
from shopassist.identity.rate_limits import Quota, RateLimitKind, RateLimits


class Seconds:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        """Return the current second."""
        return self.now


def limits(clock: Seconds, questions: int = 3, reads: int = 5, factor: int = 2) -> RateLimits:
    """Small ones."""
    return RateLimits(questions, reads, factor, clock)


def guest(name: str, network: str | None = None) -> Caller:
    """Return a guest of that name."""
    return Caller(name, is_guest=True, network=network)


async def test_a_caller_has_their_quota_and_no_more() -> None:
    """Each request says what is left; past the last one they are refused until a minute after the first."""
    clock = Seconds()
    some = limits(clock)
    left = []
    for second in (0, 10, 20, 30, 59):
        clock.now = second
        left.append(some.consume(RateLimitKind.QUESTIONS, guest("a")))
    assert left == [
        Quota("questions", 3, 2, 60),
        Quota("questions", 3, 1, 50),
        Quota("questions", 3, 0, 40),
        Quota("questions", 3, 0, 30, refused=True),
        Quota("questions", 3, 0, 1, refused=True),
    ]
    clock.now = 60
    assert some.consume(RateLimitKind.QUESTIONS, guest("a")) == Quota("questions", 3, 2, 60)


async def test_callers_and_kinds_are_counted_apart() -> None:
    """Other callers' requests and reads do not use a caller's questions; a guest is not the user of that name."""
    some = limits(Seconds())
    for _ in range(4):
        some.consume(RateLimitKind.QUESTIONS, guest("a"))
    assert (some.consume(RateLimitKind.QUESTIONS, guest("a"))).refused
    assert not (some.consume(RateLimitKind.READS, guest("a"))).refused
    assert not (some.consume(RateLimitKind.QUESTIONS, guest("b"))).refused
    assert not (some.consume(RateLimitKind.QUESTIONS, Caller("a", is_guest=False))).refused


async def test_a_network_has_a_multiple_of_it() -> None:
    """However many names come from one network, together they have twice a caller's; another network has its own."""
    some = limits(Seconds())
    outcomes = [some.consume(RateLimitKind.QUESTIONS, guest(f"g{number}", "n1")) for number in range(10)]
    assert [quota.refused for quota in outcomes] == [False] * 6 + [True] * 4
    assert outcomes[-1] == Quota("questions-network", 6, 0, 60, refused=True)
    assert not (some.consume(RateLimitKind.QUESTIONS, guest("g0", "n2"))).refused


async def test_who_is_refused_uses_up_nothing_of_their_neighbours() -> None:
    """A caller who goes on past their own quota does not spend the network's."""
    some = limits(Seconds())
    for _ in range(50):
        some.consume(RateLimitKind.QUESTIONS, guest("loud", "n"))
    assert not (some.consume(RateLimitKind.QUESTIONS, guest("quiet", "n"))).refused


async def test_invented_names_do_not_pile_up() -> None:
    """However many there were, what is kept is bounded, and a window that is still open is not lost by a turn."""
    clock = Seconds()
    some = RateLimits(3, 3, 2, clock, max_callers=1000)
    some.consume(RateLimitKind.READS, guest("mine"))
    for number in range(1010):
        some.consume(RateLimitKind.READS, guest(f"one-{number}"))
    assert some.consume(RateLimitKind.READS, guest("mine")).left == 1
    for number in range(3000):
        some.consume(RateLimitKind.READS, guest(f"other-{number}"))
    assert len(some._recent) + len(some._previous) <= 2000  # noqa: SLF001 - memory is the point


async def test_a_hit_costs_the_same_however_many_are_counted() -> None:
    """With 50,000 callers in the window a hit takes no more than 100 µs on average, also on a busy machine."""
    some = RateLimits(300, 300, 10**7)
    for number in range(50_000):
        some.consume(RateLimitKind.READS, guest(str(number)))
    began = time.process_time()
    for number in range(10_000):
        some.consume(RateLimitKind.READS, guest(str(number), "network"))
    assert (time.process_time() - began) / 10_000 < 100e-6
