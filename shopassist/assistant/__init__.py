"""Understand shopping questions and answer them from the catalogue."""
