"""The whole state as a file: written, read back, compared."""
