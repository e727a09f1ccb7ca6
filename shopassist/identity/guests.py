"""Guests: people who are known by the session id that their browser made up."""

import re

from shopassist.errors import SessionRefusedError
from shopassist.identity.caller import Caller

SESSION_ID = re.compile(r"[!-{}~]{1,255}")
"""Visible ASCII but the bar, which joins connection and user in the subjects of common identity providers."""


def guest(session_id: str) -> Caller:
    """The guest of a session id. Raises `SessionRefusedError` when nobody can have that id."""
    if not SESSION_ID.fullmatch(session_id):
        raise SessionRefusedError
    return Caller(user_id=session_id, is_guest=True)
