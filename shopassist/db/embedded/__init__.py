"""A PostgreSQL server of our own, used when `DATABASE_URL` is not set."""

__all__ = ["Binaries", "EmbeddedPostgres", "die_with_parent", "find_binaries"]
