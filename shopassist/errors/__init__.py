"""The family of domain errors.

Each error carries what the outside needs to act on it: a stable `code` (the `error_type` of the API), the HTTP
status, and whether the same call may succeed when tried again. `detail` is written for the person who reads it and
never holds an exception text, a DSN or SQL.
"""

from shopassist.errors.callers import (
    AccountErasedError,
    AuthenticationError,
    GuestMergedError,
    InvalidTokenError,
    IssuerUnavailableError,
    PermissionDeniedError,
    SessionRefusedError,
)
from shopassist.errors.consents import (
    ConsentExistsError,
    ConsentRequiredError,
    NoticeExistsError,
    NoticeOutdatedError,
    PrivacySignalError,
    TermsNotAcceptedError,
)
from shopassist.errors.family import ShopAssistError
from shopassist.errors.operation import (
    BackupError,
    DatabaseAbsentError,
    DatabaseLostError,
    MigrationError,
    StartupError,
    StateError,
)
from shopassist.errors.requests import (
    BodyEncodedError,
    BodyTooLargeError,
    ClientGoneError,
    CreditsExhaustedError,
    GuestLimitError,
    HostNotAllowedError,
    IntegrityError,
    InvalidInputError,
    KeyInFlightError,
    KeyReusedError,
    NoRolloutError,
    NotFoundError,
    OverdrawError,
    RateLimitedError,
    StorageUnavailableError,
)

__all__ = [
    "AccountErasedError",
    "AuthenticationError",
    "BackupError",
    "BodyEncodedError",
    "BodyTooLargeError",
    "ClientGoneError",
    "ConsentExistsError",
    "ConsentRequiredError",
    "CreditsExhaustedError",
    "DatabaseAbsentError",
    "DatabaseLostError",
    "GuestLimitError",
    "GuestMergedError",
    "HostNotAllowedError",
    "IntegrityError",
    "InvalidInputError",
    "InvalidTokenError",
    "IssuerUnavailableError",
    "KeyInFlightError",
    "KeyReusedError",
    "MigrationError",
    "NoRolloutError",
    "NotFoundError",
    "NoticeExistsError",
    "NoticeOutdatedError",
    "OverdrawError",
    "PermissionDeniedError",
    "PrivacySignalError",
    "RateLimitedError",
    "SessionRefusedError",
    "ShopAssistError",
    "StartupError",
    "StateError",
    "StorageUnavailableError",
    "TermsNotAcceptedError",
]
