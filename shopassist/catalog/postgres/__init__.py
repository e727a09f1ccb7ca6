"""PostgreSQL storage of the catalogue."""
