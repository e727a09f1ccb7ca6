"""Read and build HTTP headers: content negotiation, rate limits, staleness, content security policy."""

import base64
import hashlib
import re
from typing import Any

from starlette.datastructures import MutableHeaders

from shopassist.db.replica import Freshness
from shopassist.identity.rate_limits import WINDOW_SECONDS, Quota

MAX_LANGUAGES = 10
"""More are noise."""


def is_preferred(accept: str, media_type: str) -> bool:
    """Whether a client with this `Accept` header would rather have `media_type` than JSON (RFC 9110, section 12.5.1).

    Only types that are named count: `*/*` is no wish.
    """
    weights = {media_type: 0.0, "application/json": 0.0}
    for part in accept.split(","):
        named, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if named in weights:
            weights[named] = next((_parse_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return weights[media_type] > weights["application/json"]


def parse_languages(accept_language: str) -> list[str]:
    """The languages of an `Accept-Language` header, the most wanted first; `*` and refused ones left out."""
    weights: dict[str, float] = {}
    for part in accept_language.split(","):
        tag, *parameters = (piece.strip() for piece in part.split(";"))
        if tag and tag != "*":
            weights[tag] = next((_parse_weight(p[2:]) for p in parameters if p.lower().startswith("q=")), 1.0)
    wanted = sorted(weights.items(), key=lambda item: -item[1])
    return [tag for tag, weight in wanted if weight > 0][:MAX_LANGUAGES]


def _parse_weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


STALE_RESPONSE: dict[str, Any] = {
    "headers": {
        "X-Data-Stale": {
            "description": "`true` while only reading is possible: the answer may be old.",
            "schema": {"type": "string"},
        },
        "X-Data-As-Of": {
            "description": "With `X-Data-Stale`, where it is known: nothing from before this instant is missing.",
            "schema": {"type": "string", "format": "date-time"},
        },
    }
}
"""For the documentation of responses that may come from the replica."""


def set_stale_headers(headers: MutableHeaders, noted: Freshness) -> None:
    """Say that the answer may be old, and, where that is known, which instant it is true of."""
    headers["X-Data-Stale"] = "true"
    headers["Cache-Control"] = "no-store"
    if noted.as_of is not None:
        headers["X-Data-As-Of"] = noted.as_of.isoformat(timespec="milliseconds")


DEFAULT_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""For answers that are no page: nothing may be loaded, run, submitted or framed."""

CSP_DATA_IMAGES = "img-src 'self' data:"
CSP_OWN_SERVER = "connect-src 'self'"


def build_csp(page: str, *more: str) -> str:
    """The policy under which the scripts and styles that stand in `page` work and no others do; and `more`."""
    return "; ".join([DEFAULT_CSP, f"script-src {build_csp_hashes(page, 'script')}", *more])


def build_csp_hashes(page: str, element: str) -> str:
    """The contents of all elements of that name, as a policy names them."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in contents)


RATE_LIMIT_HEADERS = ["RateLimit", "RateLimit-Policy"]


def build_quota_headers(quota: Quota) -> list[tuple[bytes, bytes]]:
    """The headers that tell of a quota: Structured Fields (RFC 9651), each a list of one item."""
    name = quota.name.encode()
    return [
        (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name, quota.limit, WINDOW_SECONDS)),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (name, quota.left, quota.seconds)),
    ]
