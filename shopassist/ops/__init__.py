"""Operations: startup, diagnosis, backups and snapshots."""
