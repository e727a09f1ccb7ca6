"""Content negotiation and content security policy."""

import base64
import hashlib
import re
from typing import Any

MAX_LANGUAGES = 10


def is_preferred(accept: str, media_type: str) -> bool:
    """Return whether an `Accept` header prefers `media_type` to JSON (RFC 9110, section 12.5.1).

    Only types that it names count, `*/*` does not.
    """
    weights = {media_type: 0.0, "application/json": 0.0}
    for part in accept.split(","):
        named, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if named in weights:
            weights[named] = next((_parse_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return weights[media_type] > weights["application/json"]


def parse_languages(accept_language: str) -> list[str]:
    """Return the languages of an `Accept-Language` header by preference, without `*` and refused ones."""
    weights: dict[str, float] = {}
    for part in accept_language.split(","):
        tag, *parameters = (piece.strip() for piece in part.split(";"))
        if tag and tag != "*":
            weights[tag] = next((_parse_weight(p[2:]) for p in parameters if p.lower().startswith("q=")), 1.0)
    preferred = sorted(weights.items(), key=lambda item: -item[1])
    return [tag for tag, weight in preferred if weight > 0][:MAX_LANGUAGES]


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
"""Documentation of responses that may come from the replica."""


DEFAULT_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Policy of responses that are not pages: nothing may be loaded, run, submitted or framed."""

CSP_DATA_IMAGES = "img-src 'self' data:"
CSP_OWN_SERVER = "connect-src 'self'"


def build_csp(page: str, *more: str) -> str:
    """Return the policy that allows the inline scripts of `page` and the directives `more`."""
    return "; ".join([DEFAULT_CSP, f"script-src {build_csp_hashes(page, 'script')}", *more])


def build_csp_hashes(page: str, element: str) -> str:
    """Return the hashes of all inline elements of that name, as a policy lists them."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in contents)
