"""Commands `shopassist consent …`: publish a notice, and list the published ones."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Column

from shopassist.audit.models import REASON_LENGTH
from shopassist.audit.storages import get_operator_name
from shopassist.consent.models import ConsentNotice, NoticePublication
from shopassist.errors import InvalidInputError
from shopassist.terminal import Columns, JsonOption, format_instant, print_rows

app = typer.Typer(no_args_is_help=True, help="What people are asked to agree to.")

output = Console(soft_wrap=True, highlight=False, markup=False)
NOTICE_COLUMNS: Columns = (
    (Column("id", justify="right"), lambda notice: str(notice.id)),
    ("purpose", lambda notice: notice.purpose),
    (Column("version", justify="right"), lambda notice: str(notice.version)),
    ("locale", lambda notice: notice.locale),
    ("published", lambda notice: format_instant(notice.published_at)),
    ("binding from", lambda notice: format_instant(notice.binding_from)),
    ("sha256", lambda notice: notice.sha256),
)

PurposeArgument = Annotated[str, typer.Argument(help="What the data is used for: terms, marketing, or your own.")]
FileArgument = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="The text in UTF-8. It is kept byte by byte.")
]
LocaleOption = Annotated[str, typer.Option(help="Its language, such as en or hi-IN.")]
VersionOption = Annotated[int | None, typer.Option(help="The next unless given; the newest to add a translation.")]
GraceOption = Annotated[
    float | None, typer.Option(help="How long an agreement to the version before still does; CONSENT_GRACE_HOURS.")
]
ReasonOption = Annotated[str | None, typer.Option(help="Why, for the audit.")]


def build_publication(
    purpose: str, file: Path, locale: str, version: int | None, grace_hours: float | None
) -> NoticePublication:
    """Build the publication of the text in `file`. Raises `InvalidInputError`."""
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file} is not UTF-8.") from None
    try:
        return NoticePublication(purpose=purpose, locale=locale, text=text, version=version, grace_hours=grace_hours)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InvalidInputError(f"{problem['loc'][0]}: {problem['msg']}.") from None


@app.command()
def publish(
    context: typer.Context,
    purpose: PurposeArgument,
    file: FileArgument,
    locale: LocaleOption,
    version: VersionOption = None,
    grace_hours: GraceOption = None,
    reason: ReasonOption = None,
) -> None:
    """Publish the text in FILE, for good, as what people are shown when they are asked to agree to PURPOSE."""
    publication = build_publication(purpose, file, locale, version, grace_hours)
    if reason is not None and not 0 < len(reason) <= REASON_LENGTH:
        raise InvalidInputError(f"--reason takes 1 to {REASON_LENGTH} characters.")
    notice: ConsentNotice = context.obj.with_services(
        lambda services: services.notice_service().publish(publication, get_operator_name(), reason)
    )
    output.print(f"{notice.purpose} version {notice.version} ({notice.locale}), id {notice.id}")
    output.print(f"sha256 {notice.sha256}")
    output.print(f"published {format_instant(notice.published_at)}, binding from {format_instant(notice.binding_from)}")


@app.command()
def notices(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what is published."""
    published = context.obj.with_services(lambda services: services.notice_service().list_notices())
    print_rows(published, NOTICE_COLUMNS, as_json=as_json)
