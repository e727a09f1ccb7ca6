"""The tables that route port methods are complete, and find the users of a unit of work."""

from functools import cached_property
from typing import Any, get_type_hints

import pytest

from shopassist.cache.service import CachedAnswers
from shopassist.consent.models import ConsentSubject
from shopassist.consent.ports import ConsentLookup
from shopassist.credits.ports import CreditLedger, IdempotencyStore, LedgerReconciliation
from shopassist.privacy.ports import ErasureRepository, PersonalDataReader
from shopassist.rollout.routed_ports import REPOSITORY_USERS, ROUTES
from shopassist.rollout.unit_of_work import find_first_call
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


REPOSITORIES = {
    name: get_type_hints(attribute.func)["return"]
    for name, attribute in vars(Repositories).items()
    if isinstance(attribute, cached_property)
}


@pytest.mark.parametrize(("repository", "port"), REPOSITORIES.items())
def test_every_repository_method_names_its_users(repository: str, port: type) -> None:
    """A method that is added to a repository must be added to the table."""
    assert set(REPOSITORY_USERS) == set(REPOSITORIES)
    assert set(REPOSITORY_USERS[repository]) == list_methods(port)


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
        found: Any = await find_first_call(body)
        assert found.user_ids == users
