"""`shopassist consent publish` and `notices`: the texts that people are asked to agree to."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from shopassist.errors import InvalidInputError
from shopassist.models.adjustment import REASON_LENGTH
from shopassist.models.notice import NoticePublication
from shopassist.ops.operator import operator
from shopassist.services.notices import NoticeService

output = Console(soft_wrap=True, highlight=False, markup=False)
LINE = "{:>6}  {:<16} {:>7}  {:<10} {:<23}  {:<23}  {}"

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


def publication_of(
    purpose: str, file: Path, locale: str, version: int | None, grace_hours: float | None
) -> NoticePublication:
    """What is to be published. Raises `InvalidInputError`."""
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file} is not UTF-8.") from None
    try:
        return NoticePublication(purpose=purpose, locale=locale, text=text, version=version, grace_hours=grace_hours)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InvalidInputError(f"{problem['loc'][0]}: {problem['msg']}.") from None


async def published(service: NoticeService, publication: NoticePublication, reason: str | None) -> None:
    """Publish it, and show what proves which text it was."""
    if reason is not None and not 0 < len(reason) <= REASON_LENGTH:
        raise InvalidInputError(f"--reason takes 1 to {REASON_LENGTH} characters.")
    notice = await service.publish(publication, operator(), reason)
    output.print(f"{notice.purpose} version {notice.version} ({notice.locale}), id {notice.id}")
    output.print(f"sha256 {notice.sha256}")
    output.print(f"published {shown(notice.published_at)}, binding from {shown(notice.binding_from)}")


def shown(instant: datetime) -> str:
    """An instant in UTC."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


async def listed(service: NoticeService) -> None:
    """A line for each notice, whole whatever the width of the terminal."""
    output.print(LINE.format("id", "purpose", "version", "locale", "published", "binding from", "sha256"))
    for notice in await service.all():
        times = shown(notice.published_at), shown(notice.binding_from)
        output.print(LINE.format(notice.id, notice.purpose, notice.version, notice.locale, *times, notice.sha256))
