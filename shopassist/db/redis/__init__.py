"""The tier of the query cache that instances share: faster or not, it takes reads off PostgreSQL, and may be lost."""
