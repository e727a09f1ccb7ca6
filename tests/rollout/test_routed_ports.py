"""The table that routes port methods is complete, and the users of each call are found."""

from inspect import signature
from typing import get_type_hints

import pytest

from shopassist.cache.service import CachedAnswers
from shopassist.consent.models import ConsentSubject
from shopassist.consent.ports import ConsentLookup
from shopassist.credits.ports import CreditLedger, IdempotencyStore, LedgerReconciliation
from shopassist.privacy.personal_data import ErasureRepository, PersonalDataReader
from shopassist.rollout.routed_ports import READS, REPOSITORIES, ROUTES, USER_ARGUMENTS, PortCall, find_first_call
from shopassist.storage.repositories import Repositories

PORTS = {
    "credit_ledger": CreditLedger,
    "replays": IdempotencyStore,
    "consent_lookup": ConsentLookup,
    "personal_data": PersonalDataReader,
    "erasures": ErasureRepository,
    "cached_answers": CachedAnswers,
    "audit": LedgerReconciliation,
}


def list_methods(port: type) -> set[str]:
    """Return the names of a port's methods."""
    return {
        name for one in port.__mro__ for name in vars(one) if not name.startswith("_") and one.__module__ != "typing"
    }


@pytest.mark.parametrize("port", PORTS)
def test_every_port_method_is_routed(port: str) -> None:
    """A method that is added to a port must be added to the table."""
    assert set(ROUTES) == set(PORTS)
    assert set(ROUTES[port]) == list_methods(PORTS[port])


def names_users(port: type, method: str) -> bool:
    """Whether the parameters of a method are users, or rows with a user id."""
    types = get_type_hints(getattr(port, method))
    return any(
        name in USER_ARGUMENTS
        or "user_id" in getattr(types[name], "__annotations__", {})
        or "Event]" in str(types[name])
        for name in list(signature(getattr(port, method)).parameters)[1:]
    )


@pytest.mark.parametrize("port", PORTS)
def test_every_method_that_is_routed_by_user_names_one(port: str) -> None:
    """So that the storage of the user is found in the arguments."""
    by_user = {method for method, handler in ROUTES[port].items() if handler in {PortCall.by_user, READS}}
    assert all(names_users(PORTS[port], method) for method in by_user)


WITHOUT_USERS = {
    "credits": {"cleanup_old_transactions", "compact_transactions"},
    "consents": {"list_consents"},
    "consent_history": set(),
    "notices": {"lock", "insert_notice", "get_notice", "get_notices", "list_published"},
    "admin_audit": {"record", "page"},
    "cache": {"get_cached_result", "cache_result", "cleanup_expired_cache", "clear_cache", "contents"},
    "catalog": {"search", "upsert", "count", "get_vocabulary", "find_corrections"},
    "guest_merges": set(),
}
"""The repository calls that are about no user."""


@pytest.mark.parametrize(("repository", "port"), REPOSITORIES.items())
def test_every_repository_method_names_its_users(repository: str, port: type) -> None:
    """A method that is added to a repository must name users, or be added to the table."""
    assert set(WITHOUT_USERS) == set(REPOSITORIES)
    without = {method for method in list_methods(port) if not names_users(port, method)}
    assert without == WITHOUT_USERS[repository]


async def test_the_first_call_of_a_body_names_the_users() -> None:
    """No call is made, and nothing after the first call is run."""
    subject = ConsentSubject("auth0|1", is_guest=False)

    async def merge(work: Repositories) -> None:
        try:
            await work.guest_merges.lock("guest", "auth0|1")
        except Exception:  # noqa: BLE001 - the body must end even so
            await work.catalog.count()

    for body, users in (
        (lambda work: work.credits.get_user_credits("auth0|1"), ("auth0|1",)),
        (lambda work: work.consent_history.list_events(subject, limit=3), ("auth0|1",)),
        (lambda work: work.consents.update_consent(user_id="auth0|1"), ("auth0|1",)),
        (lambda work: work.catalog.get_vocabulary(), ()),
        (merge, ("guest", "auth0|1")),
    ):
        _, found = await find_first_call(body)
        assert found == users
