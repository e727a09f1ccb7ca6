"""Products: models, search criteria, storage and import."""
