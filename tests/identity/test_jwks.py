"""The keys of a token issuer: when it is asked, and what is done while it is away."""

import asyncio
from contextlib import suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shopassist.errors import IssuerUnavailableError, TokenRefusal
from shopassist.identity.tokens import FRESH_SECONDS, RETRY_SECONDS, STALE_SECONDS, IssuerKeys

PUBLIC = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)


class Issuer:
    """Publishes keys of these ids, counts how often it is asked, and is slow or away when told."""

    def __init__(self, *key_ids: str) -> None:
        """Its clock stands at 0."""
        self.key_ids = list(key_ids)
        self.asked = 0
        self.failure: Exception | None = None
        self.document: Any = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.now = 0.0
        self.keys = IssuerKeys(self.fetch, lambda: self.now)

    async def fetch(self) -> dict[str, Any]:
        """Return the JWKS document."""
        self.asked += 1
        await self.may_answer.wait()
        if self.failure:
            raise self.failure
        found: dict[str, Any] = self.document or {"keys": [{**PUBLIC, "kid": key_id} for key_id in self.key_ids]}
        return found

    async def knows(self, key_id: str) -> bool:
        """Whether the key is believed now."""
        return await self.keys.get(key_id) is not None


async def settle() -> None:
    """Let what happens in the background happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_many_who_ask_at_once_wait_for_one_answer() -> None:
    """A thousand tokens with known and unknown keys at a cold start are one fetch."""
    issuer = Issuer("a")
    issuer.may_answer.clear()
    asking = [asyncio.create_task(issuer.knows("a" if number % 2 else f"x{number}")) for number in range(1000)]
    await settle()
    issuer.may_answer.set()
    assert sum(await asyncio.gather(*asking)) == 500
    assert issuer.asked == 1


async def test_a_client_that_goes_away_takes_no_answer_along() -> None:
    """A fetch goes on for other callers when the one that caused it is cancelled."""
    issuer = Issuer("a")
    issuer.may_answer.clear()
    first, other = asyncio.create_task(issuer.knows("a")), asyncio.create_task(issuer.knows("a"))
    await settle()
    first.cancel()
    await settle()
    issuer.may_answer.set()
    assert await other
    assert await issuer.knows("a")
    assert issuer.asked == 1


async def test_unknown_keys_cause_one_fetch_in_30_seconds() -> None:
    """However many of them arrive; known keys are answered at once meanwhile, even while the issuer is slow."""
    issuer = Issuer("a")
    assert await issuer.knows("a")
    for second in range(1, 300):
        issuer.now = float(second)
        asked = issuer.asked
        for number in range(10):
            with suppress(IssuerUnavailableError):
                assert not await issuer.knows(f"unknown {second} {number}")
                assert (number, issuer.asked) == (0, asked + 1)  # only what the issuer was asked for is refused
    assert issuer.asked == 300 / RETRY_SECONDS
    issuer.now += RETRY_SECONDS
    issuer.may_answer.clear()
    waiting = asyncio.create_task(issuer.knows("unknown"))
    await settle()
    assert await asyncio.wait_for(issuer.knows("a"), 1)
    issuer.may_answer.set()
    assert not await waiting


async def test_a_new_key_is_found_and_one_that_is_withdrawn_is_forgotten() -> None:
    """Rotation: the first token with the new key makes the issuer be asked."""
    issuer = Issuer("old")
    assert await issuer.knows("old")
    issuer.key_ids = ["old", "new"]
    issuer.now = RETRY_SECONDS
    assert await issuer.knows("new")
    issuer.key_ids = ["new"]
    issuer.now += FRESH_SECONDS + 1
    assert await issuer.knows("old")  # served at once, and looked up behind it
    await settle()
    assert not await issuer.knows("old")
    assert await issuer.knows("new")


async def test_keys_are_refreshed_in_the_background() -> None:
    """After ten minutes callers do not wait, and the issuer is asked once."""
    issuer = Issuer("a")
    assert await issuer.knows("a")
    issuer.now = FRESH_SECONDS + 1
    issuer.may_answer.clear()
    assert all(await asyncio.wait_for(asyncio.gather(*(issuer.knows("a") for _ in range(100))), 1))
    await settle()
    assert issuer.asked == 2
    issuer.may_answer.set()
    await settle()
    issuer.now += FRESH_SECONDS - 1
    assert await issuer.knows("a")
    await settle()
    assert issuer.asked == 2


async def test_a_key_is_unknown_only_if_the_issuer_said_so() -> None:
    """Shortly after a fetch a new key may be right, so that nothing is said of it until the issuer is asked again."""
    issuer = Issuer("old")
    assert await issuer.knows("old")
    issuer.key_ids = ["old", "new"]
    for second, retry_after in ((0, 30), (1, 29), (29.5, 1)):
        issuer.now = second
        with pytest.raises(IssuerUnavailableError) as unknown:
            await issuer.knows("new")
        assert (unknown.value.kind, unknown.value.retry_after) == (TokenRefusal.UNKNOWN_KEY, retry_after)
        assert await issuer.knows("old")
    issuer.now = RETRY_SECONDS
    assert await issuer.knows("new")
    issuer.now += RETRY_SECONDS
    assert not await issuer.knows("stranger's")
    issuer.failure = OSError("away")
    issuer.now += RETRY_SECONDS
    with pytest.raises(IssuerUnavailableError):
        await issuer.knows("newest")


@pytest.mark.parametrize(
    "wrong",
    [
        OSError("away"),
        ValueError("no JSON"),
        {"keys": []},
        {"keys": ["a"]},
        {"keys": [{"kty": ["EC"], "kid": "a"}]},
        {"keys": None},
        {"error": "down for maintenance"},
        ["a"],
    ],
    ids=str,
)
async def test_stale_keys_serve_for_a_day_while_the_issuer_is_away(wrong: Any) -> None:
    """Also when it answers nonsense; then nothing can be said of a token, until the issuer is back."""
    issuer = Issuer("a")
    assert await issuer.knows("a")
    if isinstance(wrong, Exception):
        issuer.failure = wrong
    else:
        issuer.document = wrong
    for hour in range(24):
        issuer.now = hour * 3600
        assert await issuer.knows("a")
        await settle()
    issuer.now = STALE_SECONDS - 1
    assert await issuer.knows("a")
    await settle()
    issuer.now = STALE_SECONDS + 1
    with pytest.raises(IssuerUnavailableError):
        await issuer.knows("a")
    issuer.failure = issuer.document = None
    issuer.now += RETRY_SECONDS
    assert await issuer.knows("a")


async def test_an_issuer_that_was_never_reached_is_asked_once_in_30_seconds() -> None:
    """No token is called invalid meanwhile."""
    issuer = Issuer("a")
    issuer.failure = OSError()
    for second in range(60):
        issuer.now = float(second)
        with pytest.raises(IssuerUnavailableError):
            await issuer.knows("a")
    assert issuer.asked == 2
