"""Both twins at once: each person's state is in memory or in PostgreSQL, and moves as the dial is turned."""
