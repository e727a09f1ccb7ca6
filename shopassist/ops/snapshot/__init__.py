"""The whole state as one file: export, import, comparison with a database."""
