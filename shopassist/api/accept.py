"""What a client would rather have."""

MOST_LANGUAGES = 10
"""More are noise."""


def prefers(accept: str, media_type: str) -> bool:
    """Whether a client with this `Accept` header would rather have `media_type` than JSON (RFC 9110, section 12.5.1).

    Only types that are named count: `*/*` is no wish.
    """
    weights = {media_type: 0.0, "application/json": 0.0}
    for part in accept.split(","):
        named, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if named in weights:
            weights[named] = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return weights[media_type] > weights["application/json"]


def languages(accept_language: str) -> list[str]:
    """The languages of an `Accept-Language` header, the most wanted first; `*` and refused ones left out."""
    weights: dict[str, float] = {}
    for part in accept_language.split(","):
        tag, *parameters = (piece.strip() for piece in part.split(";"))
        if tag and tag != "*":
            weights[tag] = next((_weight(p[2:]) for p in parameters if p.lower().startswith("q=")), 1.0)
    wanted = sorted(weights.items(), key=lambda item: -item[1])
    return [tag for tag, weight in wanted if weight > 0][:MOST_LANGUAGES]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
