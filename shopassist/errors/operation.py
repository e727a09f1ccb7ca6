"""What keeps the process from starting or going on, and operators from what they want."""

from shopassist.errors.family import ShopAssistError


class StartupError(ShopAssistError):
    """The process cannot start; `detail` is the one sentence shown before it exits."""

    code = "startup_failed"


class DatabaseAbsentError(StartupError):
    """The database cannot be reached while the process starts."""

    code = "database_absent"


class DatabaseLostError(ShopAssistError):
    """The database has been away for too long or cannot be worked with: the process ends, and `detail` says why."""

    code = "database_lost"


class MigrationError(StartupError):
    """The schema could not be brought to, or is not at, the revision this code needs."""

    code = "migration_failed"


class BackupError(ShopAssistError):
    """A backup could not be made, proved or restored; `detail` says why, and nothing was changed."""

    code = "backup_failed"


class StateError(ShopAssistError):
    """A snapshot of the state could not be written, imported or compared; `detail` says why."""

    code = "state_failed"
