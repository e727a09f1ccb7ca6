"""The repositories of all folders, as one unit of work offers them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from shopassist.audit.models import AdminAudit
from shopassist.cache.service import CacheRepository
from shopassist.catalog.ports import CatalogRepository
from shopassist.consent.ports import ConsentHistory, ConsentRepository, NoticeRepository
from shopassist.credits.ports import CreditRepository
from shopassist.privacy.ports import GuestMergeRepository


class Repositories:
    """The repositories of one session, each built when it is first used."""

    def __init__(self, session: Any, **factories: Callable[[Any], Any]) -> None:
        """`factories` build a repository from a session, by the names below."""
        self._session = session
        self._factories = factories

    def replace(self, **repositories: Any) -> "Repositories":
        """Return the same repositories but for the given ones."""
        copy = Repositories(self._session, **self._factories)
        copy.__dict__.update(self.__dict__, **repositories)
        return copy

    @cached_property
    def credits(self) -> CreditRepository:
        """Accounts and transactions."""
        repository: CreditRepository = self._factories["credits"](self._session)
        return repository

    @cached_property
    def consents(self) -> ConsentRepository:
        """Consent records."""
        repository: ConsentRepository = self._factories["consents"](self._session)
        return repository

    @cached_property
    def consent_history(self) -> ConsentHistory:
        """Consent events."""
        repository: ConsentHistory = self._factories["consent_history"](self._session)
        return repository

    @cached_property
    def notices(self) -> NoticeRepository:
        """Published notices."""
        repository: NoticeRepository = self._factories["notices"](self._session)
        return repository

    @cached_property
    def admin_audit(self) -> AdminAudit:
        """Actions of administrators."""
        repository: AdminAudit = self._factories["admin_audit"](self._session)
        return repository

    @cached_property
    def cache(self) -> CacheRepository:
        """Stored answers."""
        repository: CacheRepository = self._factories["cache"](self._session)
        return repository

    @cached_property
    def catalog(self) -> CatalogRepository:
        """Products."""
        repository: CatalogRepository = self._factories["catalog"](self._session)
        return repository

    @cached_property
    def guest_merges(self) -> GuestMergeRepository:
        """Merges of guests into users."""
        repository: GuestMergeRepository = self._factories["guest_merges"](self._session)
        return repository
