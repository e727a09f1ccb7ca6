"""Backups of the database: created, verified, restored."""
