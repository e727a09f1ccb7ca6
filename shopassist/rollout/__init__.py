"""Gradual migration of users from memory to PostgreSQL (`STORAGE=rollout`)."""
