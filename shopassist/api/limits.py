"""How often clients may ask, and how they are told (draft-ietf-httpapi-ratelimit-headers)."""

from fastapi import Request

from shopassist.errors import RateLimitedError
from shopassist.identity.caller import Caller
from shopassist.identity.limits import WINDOW_SECONDS, Kind, Quota, RateLimits

HEADERS = ["RateLimit", "RateLimit-Policy"]


async def spend(request: Request, limits: RateLimits, kind: Kind, caller: Caller) -> None:
    """Count a request of the caller; the answer will say what is left. Raises `RateLimitedError`."""
    quota = await limits.spend(kind, caller)
    request.scope["quota"] = quota
    if quota.refused:
        raise RateLimitedError(quota.seconds)


def quota_headers(quota: Quota) -> list[tuple[bytes, bytes]]:
    """The headers that tell of a quota: Structured Fields (RFC 9651), each a list of one item."""
    name = quota.name.encode()
    return [
        (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name, quota.most, WINDOW_SECONDS)),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (name, quota.left, quota.seconds)),
    ]
