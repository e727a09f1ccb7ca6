"""Signed sessions: only the server can make one."""

import base64
import hashlib
import hmac
import string

import pytest

from shopassist.errors import InvalidInputError, SessionRefusedError
from shopassist.identity.caller import GuestSessions

KEY = b"k" * 32


def test_a_session_is_its_guests() -> None:
    """Every server with the same secret recognises the guest of a session; each session is another guest."""
    issued = [GuestSessions(KEY).issue() for _ in range(100)]
    assert len({caller.user_id for caller, _ in issued}) == 100
    for caller, session_id in issued:
        again = GuestSessions(KEY, only_signed=True).verify(session_id, "network")
        assert (again.user_id, again.is_guest, again.network) == (caller.user_id, True, "network")
        assert len(session_id) <= 255


@pytest.mark.parametrize("only_signed", [False, True])
def test_every_change_to_a_session_is_refused(only_signed: bool) -> None:
    """A session with a changed, added or removed character is refused, also when unsigned ids are accepted."""
    sessions = GuestSessions(KEY, only_signed)
    _, session_id = sessions.issue()
    forged = []
    for position in range(len(session_id)):
        other = next(c for c in string.ascii_letters if c != session_id[position])
        forged.append(session_id[:position] + other + session_id[position + 1 :])
        forged.append(session_id[:position] + session_id[position + 1 :])
    forged += [f"{session_id}A", f"{session_id}.", f"{session_id}=", session_id.swapcase()]
    kept = [changed for changed in forged if changed.startswith("gs1.") or only_signed]
    assert len(kept) > 100
    for changed in kept:
        with pytest.raises(SessionRefusedError):
            sessions.verify(changed)


def test_a_user_id_is_no_session() -> None:
    """A guest's id, as shown in responses, does not give access to the guest's account."""
    sessions = GuestSessions(KEY)
    caller, session_id = sessions.issue()
    code = session_id.rpartition(".")[2]
    for forged in (caller.user_id, f"{caller.user_id}.", f"{caller.user_id}.{caller.user_id}", f"gs1..{code}"):
        with pytest.raises(SessionRefusedError):
            sessions.verify(forged)


def test_another_secret_signs_nothing_here() -> None:
    """Neither another server's sessions nor the code under an empty or a public key are believed."""
    caller, foreign = GuestSessions(b"o" * 32).issue()
    forged = [foreign]
    for key in (b"", b"guest session", b"shopassist guest session"):
        code = base64.urlsafe_b64encode(hmac.digest(key, caller.user_id.encode(), hashlib.sha256)).decode()
        forged.append(f"{caller.user_id}.{code.rstrip('=')}")
    for session_id in forged:
        with pytest.raises(SessionRefusedError):
            GuestSessions(KEY).verify(session_id)


def test_the_code_of_one_guest_is_not_anothers() -> None:
    """Ids and codes cannot be exchanged."""
    sessions = GuestSessions(KEY)
    (one, _), (_, other) = sessions.issue(), sessions.issue()
    with pytest.raises(SessionRefusedError):
        sessions.verify(f"{one.user_id}.{other.rpartition('.')[2]}")


@pytest.mark.parametrize("session_id", ["g2wsht", "x" * 255, "", "é" * 300, "gs1", "GS1.a.b"])
def test_only_signed_means_only_signed(session_id: str) -> None:
    """No other id is believed where sessions must be signed."""
    with pytest.raises(SessionRefusedError):
        GuestSessions(KEY, only_signed=True).verify(session_id)


def test_made_up_sessions_are_believed_unless_told() -> None:
    """What a browser made up is a guest; what is too long for one is not valid."""
    assert GuestSessions(KEY).verify("g2wsht").user_id == "g2wsht"
    with pytest.raises(InvalidInputError):
        GuestSessions(KEY).verify("x" * 10_000)
