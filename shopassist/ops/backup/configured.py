"""Backups as the settings say."""

from pathlib import Path

from sqlalchemy import URL

from shopassist.errors import StartupError
from shopassist.ops.backup import create
from shopassist.ops.backup.manifest import Manifest
from shopassist.ops.startup import protected
from shopassist.settings import Settings


def folder_of(settings: Settings) -> Path:
    """Where backups are kept."""
    return settings.backup.folder or settings.database.data_folder / "backups"


def link_of(settings: Settings) -> URL:
    """The link that backups are made over: the owner's, else the app's. Raises `StartupError` for state in memory."""
    owner, link = settings.database.migration_url, settings.database.database_url
    if link is None:
        raise StartupError("STORAGE=memory has no database.")
    return protected(settings, owner, "DATABASE_MIGRATION_URL") if owner else protected(settings, link)


async def backed_up(settings: Settings) -> Manifest:
    """Make a backup and remove the oldest beyond BACKUP_KEEP. Raises `BackupError` and `StartupError`."""
    folder = folder_of(settings)
    made = await create.create(link_of(settings), folder, settings.backup.recipient)
    create.prune(folder, settings.backup.keep)
    return made
