"""Consent: notices, decisions for each purpose, and the consent record of registered users."""
