"""The repositories of all folders, as one unit of work offers them."""

from collections.abc import Callable
from typing import Any

from shopassist.audit.models import AdminAudit
from shopassist.cache.service import CacheRepository
from shopassist.catalog.ports import CatalogRepository
from shopassist.consent.ports import ConsentHistory, ConsentRepository, NoticeRepository
from shopassist.credits.ports import CreditRepository
from shopassist.privacy.personal_data import GuestMergeRepository


class Repositories:
    """The repositories of one session, each built when it is first used."""

    credits: CreditRepository
    consents: ConsentRepository
    consent_history: ConsentHistory
    notices: NoticeRepository
    admin_audit: AdminAudit
    cache: CacheRepository
    catalog: CatalogRepository
    guest_merges: GuestMergeRepository

    def __init__(self, session: Any, **factories: Callable[[Any], Any]) -> None:
        """`factories` build a repository from a session, by the names above."""
        self._session = session
        self._factories = factories

    def __getattr__(self, name: str) -> Any:
        """Build a repository at its first use."""
        if name not in self._factories:
            raise AttributeError(name)
        repository = self._factories[name](self._session)
        setattr(self, name, repository)
        return repository
