"""`shopassist doctor`: looks a deployment over and says what to put right."""

from rich.console import Console
from rich.table import Table

from shopassist.db.links import normalised
from shopassist.db.migrate import connected, known_revisions, revision_of
from shopassist.db.tls import secured
from shopassist.errors import StartupError
from shopassist.ops.doctor import contents, server, surroundings
from shopassist.ops.doctor.finding import Check, Deployment, Finding
from shopassist.settings import Settings

CHECKS: tuple[Check, ...] = (
    server.migrations,
    server.role,
    server.tls,
    server.clock,
    server.durability,
    server.connections,
    surroundings.settings,
    surroundings.backups,
    surroundings.shared_cache,
)
OF_CONTENTS: tuple[Check, ...] = (
    contents.indexes,
    contents.dead_rows,
    contents.money,
    contents.leader,
    contents.consent,
)
"""Checks of what only a database with the schema of this version has."""


async def examined(settings: Settings) -> list[Finding]:
    """What was found, in the order of the checks. Raises `StartupError` when the database cannot be reached."""
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    url = secured(normalised(settings.database.database_url.get_secret_value()), settings.database)
    async with connected(url) as connection:
        deployment = Deployment(settings, url, connection)
        checks = CHECKS + (OF_CONTENTS if await revision_of(connection) == known_revisions()[-1] else ())
        return [await check(deployment) for check in checks]


def show(findings: list[Finding]) -> bool:
    """Print them; whether all is well."""
    table = Table("", "check", "seen", "to do", box=None, pad_edge=False)
    for finding in findings:
        table.add_row("ok" if finding.healthy else "!!", finding.check, finding.seen, finding.fix or "")
    console = Console(highlight=False, markup=False)
    console.print(table)
    wrong = sum(not finding.healthy for finding in findings)
    console.print(f"{len(findings)} checks, {wrong} to put right" if wrong else f"{len(findings)} checks, all well")
    return not wrong
