"""On whose behalf a question is answered: what is nobody's, the catalogue and cached answers, is read on their side."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_asker: ContextVar[str | None] = ContextVar("asker", default=None)


@contextmanager
def on_behalf_of(user_id: str) -> Iterator[None]:
    """Whatever is asked in this block, and in tasks begun in it, serves that person."""
    token = _asker.set(user_id)
    try:
        yield
    finally:
        _asker.reset(token)


def asker() -> str | None:
    """Who is served, if it is a person."""
    return _asker.get()
