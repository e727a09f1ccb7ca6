"""Credit accounts, their ledger, adjustments and reconciliation."""
