"""Backups as the settings say."""

from pathlib import Path

from sqlalchemy import URL

from shopassist.ops.backup import create
from shopassist.ops.backup.manifest import Manifest
from shopassist.ops.session_link import required_session_link
from shopassist.settings import Settings


def folder_of(settings: Settings) -> Path:
    """Where backups are kept."""
    return settings.backup.folder or settings.database.data_folder / "backups"


def link_of(settings: Settings) -> URL:
    """The link that backups are made over: the owner's, else the app's past any pooler. Raises `StartupError`."""
    return required_session_link(settings)


async def backed_up(settings: Settings) -> Manifest:
    """Make a backup and remove the oldest beyond BACKUP_KEEP. Raises `BackupError` and `StartupError`."""
    folder = folder_of(settings)
    made = await create.create(link_of(settings), folder, settings.backup.recipient)
    create.prune(folder, settings.backup.keep)
    return made
