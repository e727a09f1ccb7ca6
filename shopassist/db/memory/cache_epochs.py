"""How often the query cache was cleared, in memory."""


class MemoryCacheEpochs:
    """Implements `CacheEpochs`."""

    def __init__(self) -> None:
        """It was never cleared."""
        self._epoch = 0

    async def current(self) -> int:
        return self._epoch

    async def advance(self) -> int:
        self._epoch += 1
        return self._epoch
