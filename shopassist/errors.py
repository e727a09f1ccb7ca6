"""Domain errors: each has a stable `code`, an HTTP status, and a `detail` that is safe to show to callers."""

from enum import StrEnum
from typing import Any, ClassVar

from sqlmodel import Field, SQLModel

PURPOSE_LENGTH = 64
LOCALE_LENGTH = 35


class NoticeReference(SQLModel):
    """Identifies one published text and proves its content."""

    id: int
    purpose: str = Field(max_length=PURPOSE_LENGTH)
    version: int
    locale: str = Field(max_length=LOCALE_LENGTH)
    sha256: str = Field(max_length=64)


class ShopAssistError(Exception):
    """Base of every error that this product raises on purpose.

    The docstring of a subclass that has its own `code` is its `detail`. Other subclasses inherit both.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    detail: str = "Something went wrong on our side."

    def __init_subclass__(cls, code: str | None = None, status: int | None = None) -> None:
        super().__init_subclass__()
        if code is not None:
            cls.code, cls.detail = code, " ".join((cls.__doc__ or cls.detail).split())
        if status is not None:
            cls.status = status

    def __init__(self, detail: str | None = None, retry_after: int | None = None, **extra: Any) -> None:
        """`retry_after`: seconds after which the request may succeed; `extra`: further public fields of the body."""
        if detail is not None:
            self.detail = detail
        self.retry_after = retry_after
        self.extra: dict[str, Any] = extra
        super().__init__(self.detail)


class AuthenticationError(ShopAssistError, code="authentication_required", status=401):
    """Missing authentication token"""


class TokenRefusal(StrEnum):
    """Why a token was refused, for the log and metrics; callers are not told."""

    NO_ISSUER = "no_issuer_configured"
    MALFORMED = "malformed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_ALGORITHM = "wrong_algorithm"
    WRONG_TYPE = "wrong_type"
    INVALID_CLAIM = "invalid_claim"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KEY = "unknown_key"
    KEYS_UNAVAILABLE = "keys_unavailable"
    METRICS = "metrics"


class InvalidTokenError(AuthenticationError, code="invalid_token"):
    """Invalid authentication token"""

    def __init__(self, kind: TokenRefusal = TokenRefusal.MALFORMED) -> None:
        super().__init__()
        self.kind = kind


class IssuerUnavailableError(ShopAssistError, code="issuer_unavailable", status=503):
    """Your token cannot be verified right now, since its issuer cannot be asked; please try again shortly."""

    def __init__(self, kind: TokenRefusal = TokenRefusal.KEYS_UNAVAILABLE, retry_after: int | None = None) -> None:
        super().__init__(retry_after=retry_after)
        self.kind = kind


class SessionRefusedError(AuthenticationError, code="invalid_session"):
    """This session id cannot be used."""


class PermissionDeniedError(ShopAssistError, code="permission_denied", status=403):
    """This needs administrator rights."""


class AccountErasedError(ShopAssistError, code="account_erased", status=409):
    """This account is being erased, or just was. Nothing was stored and nothing charged; ask again in a moment."""


class GuestMergedError(ShopAssistError, code="guest_already_merged", status=409):
    """This guest session was merged into an account before; that is done once."""


class NotFoundError(ShopAssistError, code="not_found", status=404):
    """Not found."""


class NoRolloutError(ShopAssistError, code="no_rollout", status=409):
    """This server does not run with STORAGE=rollout."""


class InvalidInputError(ShopAssistError, code="invalid_input", status=422):
    """The request is not valid."""


class IntegrityError(ShopAssistError, code="integrity_error", status=409):
    """The change conflicts with what is stored."""


class CreditsExhaustedError(ShopAssistError, code="credits_exhausted", status=429):
    """No credits left."""


class GuestLimitError(ShopAssistError, code="guest_limit_reached", status=429):
    """Too many new guests have come from your network today. Please log in to go on."""


class RateLimitedError(ShopAssistError, code="rate_limited", status=429):
    """Too many requests in a short time. Please wait a moment."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after=retry_after)


class BodyTooLargeError(ShopAssistError, code="body_too_large", status=413):
    """The body of a request may have 64 KB at the most."""


class BodyEncodedError(ShopAssistError, code="unsupported_encoding", status=415):
    """The body of a request must be sent as it is, not compressed."""


class ContentTypeError(ShopAssistError, code="unsupported_media_type", status=415):
    """The body of a request must be JSON, with the header `Content-Type: application/json`."""


class HostNotAllowedError(ShopAssistError, code="host_not_allowed", status=400):
    """This server does not answer to that host name."""


class KeyReusedError(ShopAssistError, code="idempotency_key_reused", status=422):
    """This Idempotency-Key was used with another request."""


class KeyInFlightError(ShopAssistError, code="idempotency_key_in_flight", status=409):
    """The request with this Idempotency-Key is still being worked on."""

    def __init__(self) -> None:
        super().__init__(retry_after=1)


class ClientGoneError(ShopAssistError, code="client_gone", status=499):
    """The client has gone. Nothing was charged."""


class OverdrawError(ShopAssistError, code="overdraw", status=409):
    """The account does not have as many credits to take, or cannot hold as many more."""


class StorageUnavailableError(ShopAssistError, code="storage_unavailable", status=503):
    """The service cannot reach its database right now. Nothing was charged; please try again shortly."""


class TermsNotAcceptedError(ShopAssistError, code="terms_not_accepted", status=400):
    """The terms must be accepted."""


class ConsentExistsError(IntegrityError, code="consent_exists", status=400):
    """A consent record already exists for this user."""


class ConsentRequiredError(PermissionDeniedError, code="consent_required"):
    """Please agree to the current terms first."""


class NoticeOutdatedError(IntegrityError, code="notice_outdated"):
    """This notice is not the current one: show the current notice and ask again."""


class PrivacySignalError(IntegrityError, code="privacy_signal_conflict"):
    """Your browser sends Global Privacy Control (Sec-GPC: 1), which says no to this. Nothing was recorded: switch the
    signal off for this site to agree, or leave this purpose out.
    """


class NoticeExistsError(IntegrityError, code="notice_exists"):
    """This version is published in this language already, and what is published stays as it is."""


class StartupError(ShopAssistError, code="startup_failed"):
    """The process cannot start."""


class DatabaseAbsentError(StartupError, code="database_absent"):
    """The database cannot be reached while the process starts."""


class DatabaseLostError(ShopAssistError, code="database_lost"):
    """The database was unavailable for too long, or is unusable; the process ends."""


class MigrationError(StartupError, code="migration_failed"):
    """The schema is not at the revision that this code needs."""


class BackupError(ShopAssistError, code="backup_failed"):
    """A backup could not be made, verified or restored; nothing was changed."""


class StateError(ShopAssistError, code="state_failed"):
    """A snapshot could not be written, imported or compared."""
