"""Ports and units of work over two storages: each call goes to the storage of the users that its arguments name."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from inspect import Signature, signature
from typing import Any, NoReturn, get_type_hints

from dependency_injector import containers, providers

from shopassist.audit.models import AdminAct
from shopassist.cache.memory import keep_answer
from shopassist.credits.models import Erasure, ReconciliationPage
from shopassist.db.ports import Result, TransactionBody
from shopassist.errors import StorageUnavailableError
from shopassist.rollout.controller import Rollout
from shopassist.rollout.models import Assignment
from shopassist.rollout.router import SHADOW_SECONDS, Router, UserPlacement
from shopassist.settings import Settings, Storage
from shopassist.storage.repositories import Repositories

USER_ARGUMENTS = frozenset({"guest_id", "user_id"})

POSTGRES_PAGE = "\0"
"""Starts the key of a reconciliation page once the accounts in memory are done; no user id has it."""


@cache
def get_signature(owner: type, method: str) -> Signature:
    """Return the signature of a method."""
    return signature(getattr(owner, method))


def find_users(owner: type, method: str, *args: object, **kwargs: object) -> tuple[str, ...]:
    """Return the users whom the arguments of a method name, by their ids or in a row; the last one's storage counts."""
    found = []
    for name, value in get_signature(owner, method).bind_partial(None, *args, **kwargs).arguments.items():
        row = value[0] if isinstance(value, list) and value else value
        if name in USER_ARGUMENTS:
            found.append(value)
        elif hasattr(row, "user_id"):
            found.append(row.user_id)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class PortCall:
    """A call of a port method."""

    router: Router
    port: str
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    async def run_on(self, storage: Any) -> Any:
        """Make the call on a storage."""
        return await getattr(getattr(storage, self.port)(), self.method)(*self.args, **self.kwargs)

    async def in_memory(self) -> Any:
        """Make the call in memory."""
        return await self.run_on(self.router.placement.memory)

    async def in_postgres(self) -> Any:
        """Make the call in PostgreSQL."""
        return await self.run_on(self.router.placement.postgres)

    async def in_both(self) -> int:
        """Return the sum of both storages: the rows that a job changes are copied by no follow-up."""
        count: int = await self.in_memory() + await self.in_postgres()
        return count

    async def by_user(self, **how: Any) -> Any:
        """Make the call where its users are, and `how` as the parameters of `Router.run` say."""
        port = type(getattr(self.router.placement.memory, self.port)())
        user_ids = find_users(port, self.method, *self.args, **self.kwargs)
        return await self.router.run(user_ids, self.method, self.run_on, **how)


async def get_account(call: PortCall) -> Any:
    """Get an account; the mirror is refreshed only if it differs."""
    return await call.by_user(writes=lambda account: not call.router.placement.memory_rows.has_account(account))


async def adjust(call: PortCall) -> Any:
    """Adjust an account. It is not repeated, since the audit has it once; the response is stored with the actor."""
    [adjustment] = call.args
    user_ids = (adjustment.actor, adjustment.user_id)
    return await call.router.run(user_ids, call.method, call.run_on, is_compared=False)


async def settle(call: PortCall) -> Any:
    """Settle a hold and keep the answer in memory, where its buyer finds it after any migration."""
    settled = await call.by_user()
    [settlement] = call.args
    if settled and settlement.answer is not None:
        store = call.router.placement.memory_rows.store
        async with store.lock:
            keep_answer(store, settlement.answer)
    return settled


async def find_answer(call: PortCall) -> Any:
    """Find a stored answer in PostgreSQL while it is used, and in memory, which has all answers that were paid for."""
    found = None
    if call.router.placement.assignment.uses_postgres:
        with suppress(StorageUnavailableError):
            found = await call.in_postgres()
    return found or await call.in_memory()


async def advance_epoch(call: PortCall) -> Any:
    """Clear the answers in memory as well as those in PostgreSQL, which counts."""
    await call.router.placement.memory.unit_of_work().run(lambda work: work.cache.clear_cache())
    return await call.in_postgres()


async def reconcile_page(call: PortCall) -> ReconciliationPage:
    """Return the pages of memory, then those of PostgreSQL."""
    after_user_id, *rest = call.args or ("",)
    if not after_user_id.startswith(POSTGRES_PAGE):
        page: ReconciliationPage = await call.in_memory()
        return ReconciliationPage(page.accounts, page.drifts, page.last_user_id or POSTGRES_PAGE)
    page = await replace(call, args=(after_user_id.removeprefix(POSTGRES_PAGE), *rest)).in_postgres()
    last = page.last_user_id
    return ReconciliationPage(page.accounts, page.drifts, None if last is None else POSTGRES_PAGE + last)


async def read_personal_data(call: PortCall) -> Any:
    """Read rows of a user; rows that belong to another user (audit, responses to administrators) from PostgreSQL."""
    table, user_id, *_ = call.args
    placement = call.router.placement
    if table.model is not AdminAct and len(table.owner_path) == 1:
        return await call.run_on(placement.get_container(user_id))
    await placement.flush_audit_entries()
    user_ids = (*placement.memory_rows.list_admins_mentioning(user_id), user_id)
    to_postgres: dict[str, Any] = {"to": Storage.POSTGRES, "is_compared": False}
    return await call.router.run(user_ids, call.method, call.run_on, writes=False, **to_postgres)


async def begin_erasure(call: PortCall) -> Erasure | None:
    """Begin an erasure in PostgreSQL, which may have old rows of a user in memory. The user stays there meanwhile."""
    [request] = call.args
    placement = call.router.placement
    await placement.flush_audit_entries()
    async with call.router.hold(request.user_id):  # calls in progress may add a response to an administrator
        user_ids = (*placement.memory_rows.list_admins_mentioning(request.user_id), request.user_id)

    async def begin(postgres: Any) -> Erasure | None:
        erasure: Erasure | None = await call.run_on(postgres)
        if erasure is not None and erasure.finished_at is None:
            placement.erasures.setdefault(erasure.id, user_ids)
        await placement.sync_erasures(subject_hash=request.subject_hash)
        return erasure

    found: Erasure | None = await call.router.run(user_ids, call.method, begin, to=Storage.POSTGRES, is_compared=False)
    return found


async def advance_erasure(call: PortCall) -> Erasure:
    """Advance an erasure in PostgreSQL; its end also removes what memory has of the user."""
    placement = call.router.placement
    erasure: Erasure = await call.in_postgres()
    if erasure.finished_at is not None:
        await placement.sync_erasures(subject_hash=erasure.subject_hash)
        async with call.router.hold(*placement.erasures.get(erasure.id, ())):
            await placement.forget_erased(erasure.id)
    return erasure


Handler = Callable[[PortCall], Awaitable[Any]]
READS: Handler = partial(PortCall.by_user, writes=False)
ROUTES: dict[str, dict[str, Handler]] = {
    "credit_ledger": {
        **dict.fromkeys(("register_guest", "deduct", "place_hold", "void", "reset"), PortCall.by_user),
        **dict.fromkeys(("void_expired", "reset_due_accounts", "delete_old_guest_counts"), PortCall.in_both),
        "get_or_create_account": get_account,
        "list_open_holds": READS,
        "settle": settle,
        "adjust": adjust,
    },
    "replays": {"get": READS, "store": PortCall.by_user, "delete_expired": PortCall.in_both},
    "consent_lookup": {"list_published": PortCall.in_memory, "get_latest_decision": READS},
    "personal_data": {"read_page": read_personal_data, "list_owners": PortCall.in_postgres},
    "erasures": {
        **dict.fromkeys(("list_unfinished", "list_erasures", "delete_expired"), PortCall.in_postgres),
        "begin": begin_erasure,
        "advance": advance_erasure,
    },
    "cached_answers": {"find": find_answer, "read_epoch": PortCall.in_postgres, "advance_epoch": advance_epoch},
    "audit": {"reconcile_page": reconcile_page},
}
"""Where the calls of each port go."""


class RoutedPort:
    """A port over both storages, with the methods that `ROUTES` lists."""

    def __init__(self, router: Router, port: str) -> None:
        """Make the calls of `port` by `router`."""
        self._router, self._port = router, port
        for method, handler in ROUTES[port].items():
            setattr(self, method, partial(self._run, method, handler))

    async def _run(self, method: str, handler: Handler, *args: Any, **kwargs: Any) -> Any:
        return await handler(PortCall(self._router, self._port, method, args, kwargs))


REPOSITORIES = get_type_hints(Repositories)


class FirstCallError(BaseException):
    """Ends the body of a unit of work at its first repository call. Its arguments are the call and its users."""


class WatchedRepositories:
    """Repositories with `on_call` in place of their methods; it takes the names of repository and method first."""

    def __init__(self, on_call: Callable[..., Any], *names: str) -> None:
        """Begin at the repositories themselves."""
        self._on_call, self._names = on_call, names

    def __getattr__(self, name: str) -> Any:
        names = (*self._names, name)
        return partial(self._on_call, *names) if self._names else WatchedRepositories(self._on_call, *names)


async def find_first_call(body: Callable[[Any], Any]) -> tuple[str, tuple[str, ...]]:
    """Return the first repository call of a body, without making it, and its users."""

    def stop(repository: str, method: str, *args: object, **kwargs: object) -> NoReturn:
        raise FirstCallError(f"{repository}.{method}", find_users(REPOSITORIES[repository], method, *args, **kwargs))

    try:
        await body(WatchedRepositories(stop))
    except FirstCallError as stopped:
        name, user_ids = stopped.args
        return name, user_ids
    raise TypeError("The body of a unit of work must call a repository.")


def refuse_users(work: Repositories) -> Any:
    """Return repositories that refuse calls about users: the unit of work could be in the wrong storage for them."""

    def call(repository: str, method: str, *args: object, **kwargs: object) -> Any:
        if find_users(REPOSITORIES[repository], method, *args, **kwargs):
            raise TypeError("The first repository call of a unit of work must name its users.")
        return getattr(getattr(work, repository), method)(*args, **kwargs)

    return WatchedRepositories(call)


class RoutedUnitOfWork:
    """Implements `UnitOfWork`, and `ReplicaReads` with `writes=False`. The first call of a body names its users."""

    def __init__(self, router: Router, writes: bool = True) -> None:
        """With `writes`, the rows of a user may change."""
        self._router = router
        self._placement = router.placement
        self._writes = writes

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one in PostgreSQL."""
        async with self._placement.postgres.unit_of_work()() as work:
            yield work

    async def run(
        self,
        body: TransactionBody[Any, Result],
        happened: TransactionBody[Any, Result | None] | None = None,
        repeatable: bool = False,
    ) -> Result:
        first_call, user_ids = await find_first_call(body)
        memory, postgres = self._placement.memory, self._placement.postgres

        async def run_on(storage: Any, body: TransactionBody[Any, Result] = body) -> Result:
            result: Result = await storage.unit_of_work().run(body, happened, repeatable)
            return result

        if user_ids:
            found: Result = await self._router.run(user_ids, "unit_of_work", run_on, self._writes)
            return found
        if first_call == "consents.list_consents":  # memory has those of all users, once the mirror is up to date
            await self._router.wait(SHADOW_SECONDS)
            return await run_on(memory)
        is_catalog_read = first_call.startswith("catalog.") and first_call != "catalog.upsert"
        if is_catalog_read and not self._placement.assignment.uses_postgres:
            return await run_on(memory)
        is_publication = first_call == "notices.lock"
        try:
            result = await run_on(postgres, lambda work: body(refuse_users(work)))
        except StorageUnavailableError:
            if is_publication:
                raise
            return await run_on(memory, lambda work: body(refuse_users(work)))
        if is_publication:
            with suppress(StorageUnavailableError):  # it is repeated in the background
                await self._placement.copy_notices()
        return result


class RolloutStorage(containers.DeclarativeContainer):
    """Ports that send each user's calls to the storage that has the user's rows."""

    settings: providers.Provider[Settings] = providers.Dependency(instance_of=Settings)
    memory: providers.Provider[Any] = providers.Dependency()
    postgres: providers.Provider[Any] = providers.Dependency()

    assignment = providers.Singleton(
        Assignment,
        percent=settings.provided.storage.rollout_percent,
        is_shadowing=settings.provided.storage.rollout_shadow,
    )
    placement = providers.Singleton(UserPlacement, assignment, memory, postgres)
    router = providers.Singleton(Router, placement)
    rollout = providers.Singleton(Rollout, router, postgres.provided.leases.call())
    background_services = providers.List(rollout)

    unit_of_work = providers.Singleton(RoutedUnitOfWork, router)
    replica_reads = providers.Singleton(RoutedUnitOfWork, router, writes=False)
    credit_ledger = providers.Singleton(RoutedPort, router, "credit_ledger")
    replays = providers.Singleton(RoutedPort, router, "replays")
    consent_lookup = providers.Singleton(RoutedPort, router, "consent_lookup")
    personal_data = providers.Singleton(RoutedPort, router, "personal_data")
    erasures = providers.Singleton(RoutedPort, router, "erasures")
    cached_answers = providers.Singleton(RoutedPort, router, "cached_answers")
    audit = providers.Singleton(RoutedPort, router, "audit")
    # The one process of a rollout leads itself, also while PostgreSQL is down.
    leases = memory.provided.leases.call()
    maintenance_runs = postgres.provided.maintenance_runs.call()
    vacuum = postgres.provided.vacuum.call()
    database = postgres.provided.database.call()
    replica = memory.provided.replica.call()
    close = postgres.provided.close.call()
