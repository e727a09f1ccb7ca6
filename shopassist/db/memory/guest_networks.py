"""How many new guests came from where, in memory."""

from datetime import UTC, timedelta

from shopassist.db.memory.store import MemoryStore
from shopassist.errors import GuestLimitError
from shopassist.models.ledger import CreditPolicy


class MemoryGuestNetworks:
    """Implements `GuestNetworks`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock says which day it is."""
        self._store = store

    async def forget_old(self, limit: int = 1000) -> int:
        yesterday = self._store.ago(timedelta(days=1)).astimezone(UTC).date()
        old = [key for key in self._store.guest_networks if key[0] < yesterday][:limit]
        for key in old:
            del self._store.guest_networks[key]
        return len(old)


def count_guest(store: MemoryStore, policy: CreditPolicy, network: str) -> None:
    """Count one more new guest of `network` today. Raises `GuestLimitError` when it has had its most."""
    key = (store.now().astimezone(UTC).date(), network)
    counted = store.guest_networks.get(key, 0)
    if counted >= policy.guest_accounts_per_network:
        raise GuestLimitError
    store.guest_networks[key] = counted + 1
