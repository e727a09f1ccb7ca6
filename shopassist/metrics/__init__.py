"""Metrics of this process, and of several worker processes together."""
