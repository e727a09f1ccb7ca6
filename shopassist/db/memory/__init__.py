"""Storage in this process's memory: one side of the storage toggle, and of fast tests."""
