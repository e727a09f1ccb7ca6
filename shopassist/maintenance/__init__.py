"""Scheduled jobs: scheduler, records of runs, leases and vacuum."""
