"""Personal data: export, erasure, and merging a guest into a registered user."""
