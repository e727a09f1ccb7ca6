"""Health and metrics endpoints; only the app and the entry points import this folder."""
