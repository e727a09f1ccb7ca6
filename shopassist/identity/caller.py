"""Who is asking, as the rest of the product sees them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """A registered user (a verified token) or a guest (a session id).

    `network` is the keyed hash of where they come from, None where nobody is counted.
    """

    user_id: str
    is_guest: bool
    scopes: frozenset[str] = field(default_factory=frozenset)
    email: str | None = None
    name: str | None = None
    picture: str | None = None
    network: str | None = None
