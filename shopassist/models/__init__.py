"""One SQLModel family per noun; importing this package registers every table."""

from shopassist.models.admin_audit import AdminAct
from shopassist.models.catalog import Product
from shopassist.models.consent import UserConsent, UserConsentCreate, UserConsentUpdate
from shopassist.models.consent_history import ConsentEvent
from shopassist.models.credits import (
    CreditHold,
    CreditStatus,
    CreditTransaction,
    IdempotentAnswer,
    TransactionType,
    UserCredits,
    UserCreditStatus,
)
from shopassist.models.erasure import ErasedBalance, Erasure
from shopassist.models.guest_merge import GuestMerge
from shopassist.models.guests import GuestNetwork, GuestSession
from shopassist.models.lease import Lease
from shopassist.models.maintenance import MaintenanceRun
from shopassist.models.notice import ConsentNotice
from shopassist.models.query_cache import CacheContents, CacheEpoch, QueryCache

__all__ = [
    "AdminAct",
    "CacheContents",
    "CacheEpoch",
    "ConsentEvent",
    "ConsentNotice",
    "CreditHold",
    "CreditStatus",
    "CreditTransaction",
    "ErasedBalance",
    "Erasure",
    "GuestMerge",
    "GuestNetwork",
    "GuestSession",
    "IdempotentAnswer",
    "Lease",
    "MaintenanceRun",
    "Product",
    "QueryCache",
    "TransactionType",
    "UserConsent",
    "UserConsentCreate",
    "UserConsentUpdate",
    "UserCreditStatus",
    "UserCredits",
]
