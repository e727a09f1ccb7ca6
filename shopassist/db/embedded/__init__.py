"""A PostgreSQL server run by this product, used when `DATABASE_URL` is not set."""
