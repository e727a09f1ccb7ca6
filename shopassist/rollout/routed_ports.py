"""Ports over two storages: a table of their methods says where each call goes."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from shopassist.audit.models import AdminAct
from shopassist.credits.models import Erasure, ReconciliationPage
from shopassist.errors import StorageUnavailableError
from shopassist.rollout.placement import AnyBackend
from shopassist.rollout.router import Router
from shopassist.settings import Storage

POSTGRES_PAGE = "\0"
"""Starts the key of a reconciliation page once the accounts in memory are done; no user id has it."""


@dataclass(frozen=True, slots=True)
class PortCall:
    """A call of a port method."""

    router: Router
    port: str
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    async def run_on(self, backend: AnyBackend) -> Any:
        """Make the call on a backend."""
        return await getattr(backend.get(self.port), self.method)(*self.args, **self.kwargs)

    async def run_in_memory(self) -> Any:
        """Make the call in memory."""
        return await self.run_on(self.router.placement.memory)

    async def run_in_postgres(self) -> Any:
        """Make the call in PostgreSQL."""
        return await self.run_on(self.router.placement.postgres)


Users = Callable[..., tuple[str, ...]]
"""Returns the users that a call is about, from its arguments; the assignment of the last one counts."""

Handler = Callable[[PortCall], Awaitable[Any]]
"""Makes a call where it belongs."""


def by_id(user_id: str, *_: object, **__: object) -> tuple[str, ...]:
    """Return the first argument, a user id."""
    return (user_id,)


def by_owner(row: Any, *_: object, **__: object) -> tuple[str, ...]:
    """Return the `user_id` of the first argument."""
    return (row.user_id,)


def no_user(*_: object, **__: object) -> tuple[str, ...]:
    """Return no user."""
    return ()


def by_user(users: Users, writes: bool = True, is_compared: bool = True) -> Handler:
    """Make the call in the storage of its users."""

    def handle(call: PortCall) -> Awaitable[Any]:
        user_ids = users(*call.args, **call.kwargs)
        return call.router.run(user_ids, call.method, call.run_on, writes, is_compared=is_compared)

    return handle


async def sum_both(call: PortCall) -> int:
    """Make the call in both storages; what follows from time needs no mirror, since it happens there as well."""
    in_memory: int = await call.run_in_memory()
    in_postgres: int = await call.run_in_postgres()
    return in_memory + in_postgres


async def get_account(call: PortCall) -> Any:
    """Get an account; the mirror is refreshed only if it differs."""
    is_mirrored = call.router.placement.is_mirrored
    user_ids = by_id(*call.args, **call.kwargs)
    return await call.router.run(user_ids, call.method, call.run_on, lambda account: not is_mirrored(account))


async def settle(call: PortCall) -> Any:
    """Settle a hold and keep the answer in memory, where its buyer finds it after any migration."""
    settled = await by_user(by_owner)(call)
    [settlement] = call.args
    if settled and settlement.answer is not None:
        await call.router.placement.memory.rows.keep_answer(settlement.answer)
    return settled


async def find_answer(call: PortCall) -> Any:
    """Find a stored answer in PostgreSQL while it is used, and in memory, which has all answers that were paid for."""
    found = None
    if call.router.placement.assignment.uses_postgres:
        with suppress(StorageUnavailableError):
            found = await call.run_in_postgres()
    return found or await call.run_in_memory()


async def advance_epoch(call: PortCall) -> Any:
    """Clear the answers in memory as well as those in PostgreSQL, which counts."""
    await call.router.placement.memory.get("unit_of_work").run(lambda work: work.cache.clear_cache())
    return await call.run_in_postgres()


async def reconcile_page(call: PortCall) -> ReconciliationPage:
    """Return the pages of memory, then those of PostgreSQL."""
    after_user_id, *rest = call.args or ("",)
    if not after_user_id.startswith(POSTGRES_PAGE):
        page: ReconciliationPage = await call.run_in_memory()
        return ReconciliationPage(page.accounts, page.drifts, page.last_user_id or POSTGRES_PAGE)
    page = await replace(call, args=(after_user_id.removeprefix(POSTGRES_PAGE), *rest)).run_in_postgres()
    last = page.last_user_id
    return ReconciliationPage(page.accounts, page.drifts, None if last is None else POSTGRES_PAGE + last)


async def read_personal_data(call: PortCall) -> Any:
    """Read rows of a user; rows that belong to another user (audit, responses to administrators) from PostgreSQL."""
    table, user_id, *_ = call.args
    placement = call.router.placement
    if table.model is not AdminAct and len(table.owner_path) == 1:
        return await call.run_on(placement.get_backend(user_id))
    await placement.flush_audit_entries()
    user_ids = (*placement.list_admins_mentioning(user_id), user_id)
    return await call.router.run(
        user_ids, call.method, call.run_on, writes=False, to=Storage.POSTGRES, is_compared=False
    )


async def begin_erasure(call: PortCall) -> Erasure | None:
    """Begin an erasure in PostgreSQL, which may have old rows of a user in memory. The user stays there meanwhile."""
    [request] = call.args
    placement = call.router.placement
    await placement.flush_audit_entries()
    async with call.router.hold(request.user_id):  # calls in progress may add a response to an administrator
        user_ids = (*placement.list_admins_mentioning(request.user_id), request.user_id)

    async def begin(postgres: AnyBackend) -> Erasure | None:
        erasure: Erasure | None = await call.run_on(postgres)
        if erasure is not None and erasure.finished_at is None and erasure.id not in placement.erasures:
            placement.erasures[erasure.id] = user_ids
            placement.pinned.update(user_ids)
        await placement.sync_erasures(request.subject_hash)
        return erasure

    found: Erasure | None = await call.router.run(user_ids, call.method, begin, to=Storage.POSTGRES, is_compared=False)
    return found


async def advance_erasure(call: PortCall) -> Erasure:
    """Advance an erasure in PostgreSQL; its end also removes what memory has of the user."""
    placement = call.router.placement
    erasure: Erasure = await call.run_in_postgres()
    if erasure.finished_at is not None:
        await placement.sync_erasures(erasure.subject_hash)
        user_ids = placement.erasures.pop(erasure.id, ())
        async with call.router.hold(*user_ids):
            await placement.release_erased(user_ids)
    return erasure


in_memory, in_postgres = PortCall.run_in_memory, PortCall.run_in_postgres

ROUTES: dict[str, dict[str, Handler]] = {
    "credit_ledger": {
        "get_or_create_account": get_account,
        "register_guest": by_user(by_id),
        "deduct": by_user(by_id),
        "place_hold": by_user(by_owner),
        "list_open_holds": by_user(by_id, writes=False),
        "settle": settle,
        "void": by_user(lambda hold_id, user_id: (user_id,)),  # noqa: ARG005 - the port's arguments
        "void_expired": sum_both,
        # The response to the administrator is stored with the adjustment. It is not repeated: the audit has it once.
        "adjust": by_user(lambda adjustment: (adjustment.actor, adjustment.user_id), is_compared=False),
        "reset": by_user(by_id),
        "reset_due_accounts": sum_both,
        "delete_old_guest_counts": sum_both,
    },
    "replays": {"get": by_user(by_id, writes=False), "store": by_user(by_owner), "delete_expired": sum_both},
    "consent_lookup": {"list_published": in_memory, "get_latest_decision": by_user(by_owner, writes=False)},
    "personal_data": {"read_page": read_personal_data, "list_owners": in_postgres},
    "erasures": {
        "begin": begin_erasure,
        "advance": advance_erasure,
        "list_unfinished": in_postgres,
        "list_erasures": in_postgres,
        "delete_expired": in_postgres,
    },
    "cached_answers": {"find": find_answer, "read_epoch": in_postgres, "advance_epoch": advance_epoch},
    "audit": {"reconcile_page": reconcile_page},
}
"""Where the calls of each port go."""

REPOSITORY_USERS: dict[str, dict[str, Users]] = {
    "credits": {
        "get_user_credits": by_id,
        "create_user_credits": by_owner,
        "update_user_credits": by_id,
        "create_transaction": by_owner,
        "get_user_transactions": by_id,
        "cleanup_old_transactions": no_user,
        "compact_transactions": no_user,
    },
    "consents": {
        "get_consent": by_id,
        "create_consent": by_owner,
        "update_consent": by_id,
        "list_consents": no_user,
    },
    "consent_history": {
        "lock": by_owner,
        "get_latest_events": by_owner,
        "insert_events": lambda events: (events[0].user_id,),
        "list_events": by_owner,
    },
    "notices": dict.fromkeys(("lock", "insert_notice", "get_notice", "get_notices", "list_published"), no_user),
    "admin_audit": dict.fromkeys(("record", "page"), no_user),
    "cache": dict.fromkeys(
        ("get_cached_result", "cache_result", "cleanup_expired_cache", "clear_cache", "contents"), no_user
    ),
    "catalog": dict.fromkeys(("search", "upsert", "count", "get_vocabulary", "find_corrections"), no_user),
    "guest_merges": {
        "lock": lambda guest_id, user_id: (guest_id, user_id),
        "find_merge": by_id,
        "move_answers": lambda guest_id, user_id: (guest_id, user_id),
        "insert_merge": lambda guest_id, user_id, moved: (guest_id, user_id),  # noqa: ARG005 - the port's arguments
    },
}
"""The users of each repository call: the first call of a unit of work decides where it is done."""


class RoutedPort:
    """A port over both storages, with the methods that `ROUTES` lists."""

    def __init__(self, router: Router, port: str) -> None:
        """Make the calls of `port` by `router`."""
        self._router, self._port = router, port
        for method, handler in ROUTES[port].items():
            setattr(self, method, partial(self._run, method, handler))

    async def _run(self, method: str, handler: Handler, *args: Any, **kwargs: Any) -> Any:
        return await handler(PortCall(self._router, self._port, method, args, kwargs))
