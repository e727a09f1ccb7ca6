"""Backups: made, listed, proved, restored. Nothing of this is on HTTP."""
