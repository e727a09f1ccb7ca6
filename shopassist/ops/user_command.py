"""`shopassist user …`: requests of people that come by letter, and the list of erasures."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer

from shopassist.db.ports import UnitOfWork
from shopassist.errors import StartupError
from shopassist.identity.subjects import SubjectHash
from shopassist.models import AdminAct
from shopassist.models.admin_audit import ERASE_USER, EXPORT_USER
from shopassist.models.erasure import AskedBy, ErasureReceipt, Listed
from shopassist.ops import erasure_list
from shopassist.ops.operator import operator
from shopassist.ops.startup import read_settings
from shopassist.services.erasure import ErasureService
from shopassist.services.export import ExportService
from shopassist.settings import Storage

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True, help="What is held of a person.")
erasures = typer.Typer(no_args_is_help=True, help="The list of erasures.")
app.add_typer(erasures, name="erasures")

UserArgument = Annotated[str, typer.Argument(help="The user's id: a subject, or a guest's session id.")]
FileOption = Annotated[
    Path | None, typer.Option("--to", dir_okay=False, help="Where to write; unless said, standard output.")
]
AddedFileArgument = Annotated[Path, typer.Argument(dir_okay=False, help="The list; what is in it stays.")]
ListArgument = Annotated[Path, typer.Argument(dir_okay=False, exists=True, help="What `export` wrote.")]


class PrivacyServices(Protocol):
    """What these commands take from the container."""

    def export_service(self) -> ExportService: ...

    def erasure_service(self) -> ErasureService: ...

    def subject_hash(self) -> SubjectHash: ...

    def unit_of_work(self) -> UnitOfWork: ...


WithServices = Callable[[Callable[[PrivacyServices], Awaitable[Result]]], Result]


@app.callback()
def during_no_rollout() -> None:
    """Refuse during a rollout: what is in the server's memory cannot be seen from here."""
    if read_settings().storage.storage is Storage.ROLLOUT:
        raise StartupError("STORAGE=rollout: users may be in the server's memory. Use its API, or end the rollout.")


@app.command()
def export(context: typer.Context, user: UserArgument, to: FileOption = None) -> None:
    """Write everything that is held of USER, as JSON."""

    async def write(services: PrivacyServices) -> None:
        await recorded(services, EXPORT_USER, user)
        parts = await services.export_service().export(user, None)
        with to.open("wb") if to else open(sys.stdout.fileno(), "wb", closefd=False) as file:  # noqa: ASYNC230
            async for part in parts:
                file.write(part)

    with_services: WithServices[None] = context.obj.with_services
    with_services(write)


@app.command()
def erase(context: typer.Context, user: UserArgument) -> None:
    """Erase USER and show the receipt; may be done again."""

    async def done(services: PrivacyServices) -> ErasureReceipt:
        receipt = await services.erasure_service().erase(user, None, AskedBy.OPERATOR, float("inf"))
        # Known by the receipt: from here on nothing names who was erased.
        await recorded(services, ERASE_USER, str(receipt.receipt_id))
        return receipt

    with_services: WithServices[ErasureReceipt] = context.obj.with_services
    receipt = with_services(done)
    typer.echo(receipt.model_dump_json(indent=2))


@erasures.command("export")
def export_list(context: typer.Context, file: AddedFileArgument) -> None:
    """Add the erasures that FILE has not yet. Keep it outside the database: it outlives a restored backup."""

    async def add(services: PrivacyServices) -> int:
        listed = [one async for one in services.erasure_service().listed()]
        return erasure_list.add(file, listed, services.subject_hash().fingerprint)

    with_services: WithServices[int] = context.obj.with_services
    typer.echo(f"{with_services(add):,} added")


@erasures.command()
def replay(context: typer.Context, file: ListArgument) -> None:
    """Erase again whoever is in FILE and was brought back by an older backup; may be done again."""

    async def again(services: PrivacyServices) -> int:
        listed = erasure_list.read(file, services.subject_hash().fingerprint)
        return await replayed(services.erasure_service(), listed)

    with_services: WithServices[int] = context.obj.with_services
    typer.echo(f"{with_services(again):,} erased again")


async def recorded(services: PrivacyServices, act: str, target: str) -> None:
    """Put the operator's act into the audit of administrators."""
    done = AdminAct(actor=operator(), act=act, target=target)
    await services.unit_of_work().run(lambda work: work.admin_audit.record(done))


async def replayed(service: ErasureService, listed: dict[str, Listed]) -> int:
    """Finish what is under way, then erase again whoever is listed; how many were."""
    await service.finish()
    count = 0
    async for receipt in service.replay(listed):
        count += receipt is not None
    return count
