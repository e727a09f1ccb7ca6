"""Credits in memory."""
