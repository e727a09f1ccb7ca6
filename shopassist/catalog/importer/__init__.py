"""Import of catalogue files in CSV, JSON and JSON lines."""
