"""Backups: where they are kept, how many, and for whose eyes."""

from pathlib import Path

from pydantic import Field, PositiveInt, SecretStr

from shopassist.settings.group import Group


class BackupSettings(Group):
    """Backups of the database."""

    folder: Path | None = Field(
        default=None, alias="BACKUP_FOLDER", description="unless said, `backups` in SHOPASSIST_DATA"
    )
    keep: PositiveInt = Field(default=7, alias="BACKUP_KEEP", description="how many; older ones are removed")
    recipient: str | None = Field(
        default=None, alias="BACKUP_RECIPIENT", description="public key (age1…) that backups are encrypted for"
    )
    identity: SecretStr | None = Field(
        default=None, alias="BACKUP_IDENTITY", description="private key (AGE-SECRET-KEY-…), to verify and to restore"
    )
    longest_age_hours: float = Field(
        default=26, gt=0, alias="BACKUP_MAX_AGE_HOURS", description="past which `shopassist doctor` complains"
    )
    before_migration: bool = Field(
        default=False, alias="BACKUP_BEFORE_MIGRATION", description="whether to back up before a start migrates"
    )
