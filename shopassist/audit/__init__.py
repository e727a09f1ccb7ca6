"""Audit log of what administrators and operators did."""
