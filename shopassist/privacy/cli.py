"""Commands `shopassist user …`: export and erase a user, and read and write the list of erasures."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Protocol
from uuid import UUID

import typer
from pydantic import BaseModel

from shopassist.audit.models import ERASE_USER, EXPORT_USER, AdminAct, AuditRepositories
from shopassist.audit.storages import get_operator_name
from shopassist.db.ports import UnitOfWork
from shopassist.errors import StartupError
from shopassist.identity.key_derivation import UserHasher
from shopassist.privacy.models import AskedBy, ErasureListEntry, ErasureReceipt
from shopassist.privacy.service import ErasureService, ExportService
from shopassist.settings import Storage, read_settings
from shopassist.terminal import YesOption, confirm_loss
from shopassist.text import validate_user_id

OTHER_KEY_MESSAGE = (
    "{} was written under another SECRET_KEY, so that no user on it can be recognised. Set the SECRET_KEY that the "
    "servers had then."
)


class ErasureLine(BaseModel):
    """Line of a list of erasures; `key` is the fingerprint of the key under which `subject` was hashed."""

    id: UUID
    subject: str
    erased_at: datetime
    key: str


def read_erasure_lines(file: Path) -> list[ErasureLine]:
    """Return the lines of a list of erasures. Raises `StartupError` for another file."""
    try:
        with file.open(encoding="utf-8") as opened:
            # A line without its end was cut off while it was written; `append_to_erasure_list` adds it again.
            return [ErasureLine.model_validate_json(text) for text in opened if text.endswith("\n")]
    except (OSError, ValueError):
        raise StartupError(f"{file} cannot be read as a list of erasures.") from None


def read_erasure_list(file: Path, fingerprint: str) -> dict[str, ErasureListEntry]:
    """Return the last erasure of each user, by hash. Raises `StartupError`, also for hashes under another key."""
    lines = sorted(read_erasure_lines(file), key=attrgetter("erased_at"))
    if {line.key for line in lines} - {fingerprint}:
        raise StartupError(OTHER_KEY_MESSAGE.format(file))
    return {line.subject: ErasureListEntry(line.id, line.subject, line.erased_at) for line in lines}


def append_to_erasure_list(file: Path, erasures: Sequence[ErasureListEntry], fingerprint: str) -> int:
    """Append the erasures that `file` does not have, and return how many. Raises `StartupError`."""
    known = {line.id for line in read_erasure_lines(file)} if file.exists() else set()
    new = [entry for entry in erasures if entry.id not in known]
    try:
        with file.open("ab") as opened:
            opened.truncate(file.read_bytes().rfind(b"\n") + 1)
            for entry in new:
                line = {"id": str(entry.id), "subject": entry.subject_hash, "erased_at": entry.erased_at.isoformat()}
                opened.write(json.dumps({**line, "key": fingerprint}).encode() + b"\n")
    except OSError as error:
        raise StartupError(f"{file} cannot be written: {error.strerror}.") from None
    return len(new)


app = typer.Typer(no_args_is_help=True, help="What is held of a person.")
erasures_app = typer.Typer(no_args_is_help=True, help="The list of erasures.")
app.add_typer(erasures_app, name="erasures")

UserArgument = Annotated[str, typer.Argument(help="The user's id: a subject, or a guest's session id.")]
FileOption = Annotated[
    Path | None, typer.Option("--to", dir_okay=False, help="Where to write; unless said, standard output.")
]
ListOutputArgument = Annotated[Path, typer.Argument(dir_okay=False, help="The list; what is in it stays.")]
ListInputArgument = Annotated[Path, typer.Argument(dir_okay=False, exists=True, help="What `export` wrote.")]


class PrivacyServices(Protocol):
    """Services of the container that these commands use."""

    def export_service(self) -> ExportService: ...

    def erasure_service(self) -> ErasureService: ...

    def user_hasher(self) -> UserHasher: ...

    def unit_of_work(self) -> UnitOfWork[AuditRepositories]: ...


@app.callback()
def refuse_during_rollout() -> None:
    """Refuse during a rollout, since rows in the server's memory are not visible to a command."""
    if read_settings().storage.storage is Storage.ROLLOUT:
        raise StartupError("STORAGE=rollout: users may be in the server's memory. Use its API, or end the rollout.")


@app.command()
def export(context: typer.Context, user: UserArgument, to: FileOption = None) -> None:
    """Write everything that is held of USER, as JSON."""

    async def write(services: PrivacyServices) -> None:
        await record_operator_action(services, EXPORT_USER, user)
        parts = await services.export_service().export(user, None)
        with to.open("wb") if to else open(sys.stdout.fileno(), "wb", closefd=False) as file:  # noqa: ASYNC230
            async for part in parts:
                file.write(part)

    context.obj.with_services(write)


@app.command()
def erase(context: typer.Context, user: UserArgument, yes: YesOption = False) -> None:
    """Erase USER for good and show the receipt; may be done again."""
    loss = f"The credits, consents and stored answers of {validate_user_id(user)!r} will be lost for good."
    confirm_loss(loss, yes=yes)

    async def erase_user(services: PrivacyServices) -> ErasureReceipt:
        receipt = await services.erasure_service().erase(user, None, AskedBy.OPERATOR, float("inf"))
        # The audit entry names the receipt, since it must not name the erased user.
        await record_operator_action(services, ERASE_USER, str(receipt.receipt_id))
        return receipt

    receipt: ErasureReceipt = context.obj.with_services(erase_user)
    typer.echo(receipt.model_dump_json(indent=2))


@erasures_app.command("export")
def export_list(context: typer.Context, file: ListOutputArgument) -> None:
    """Add the erasures that FILE has not yet. Keep it outside the database: it outlives a restored backup."""

    async def append(services: PrivacyServices) -> int:
        listed = await services.erasure_service().list_erasures()
        return append_to_erasure_list(file, listed, services.user_hasher().fingerprint)

    typer.echo(f"{context.obj.with_services(append):,} added")


@erasures_app.command()
def replay(context: typer.Context, file: ListInputArgument) -> None:
    """Erase again the users in FILE that an older backup brought back; may be done again."""

    async def repeat(services: PrivacyServices) -> int:
        listed = read_erasure_list(file, services.user_hasher().fingerprint)
        return len(await services.erasure_service().repeat_listed(listed))

    typer.echo(f"{context.obj.with_services(repeat):,} erased again")


async def record_operator_action(services: PrivacyServices, act: str, target: str) -> None:
    """Insert an audit entry of the operator."""
    entry = AdminAct(actor=get_operator_name(), act=act, target=target)
    await services.unit_of_work().run(lambda work: work.admin_audit.record(entry))
