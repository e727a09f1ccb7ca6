"""Everything that knows a database."""
