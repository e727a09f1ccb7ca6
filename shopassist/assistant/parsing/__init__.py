"""Parse a question into search criteria."""
