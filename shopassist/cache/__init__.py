"""The query cache: stored answers in PostgreSQL, an optional Redis tier, an in-process fallback."""
