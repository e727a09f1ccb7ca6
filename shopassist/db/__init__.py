"""Database access that all nouns share."""
