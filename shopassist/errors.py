"""Domain errors: each has a stable `code`, an HTTP status, and a `detail` that is safe to show to callers."""

from typing import Any, ClassVar

from sqlmodel import SQLModel


class NoticeReference(SQLModel):
    """Which text: enough to find it and to prove that it is the one."""

    id: int
    purpose: str
    version: int
    locale: str
    sha256: str


class ShopAssistError(Exception):
    """Base of every error this product raises on purpose."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    detail: str = "Something went wrong on our side."

    def __init__(self, detail: str | None = None, **extra: Any) -> None:
        """`extra` holds further public fields of the JSON body."""
        if detail is not None:
            self.detail = detail
        self.extra: dict[str, Any] = extra
        super().__init__(self.detail)


class AuthenticationError(ShopAssistError):
    """Nobody we know is asking: no credentials, or credentials that do not hold."""

    code = "authentication_required"
    status = 401
    detail = "Missing authentication token"


class InvalidTokenError(AuthenticationError):
    """A token was sent and it does not verify."""

    code = "invalid_token"
    detail = "Invalid authentication token"


class IssuerUnavailableError(ShopAssistError):
    """The token's issuer cannot be asked for its keys, and none are known from before."""

    code = "issuer_unavailable"
    status = 503
    retryable = True
    detail = "Tokens cannot be verified right now, since their issuer cannot be reached; please try again shortly."


class SessionRefusedError(AuthenticationError):
    """A guest's session id that cannot be used."""

    code = "invalid_session"
    detail = "This session id cannot be used."


class PermissionDeniedError(ShopAssistError):
    """The caller is known and may not do this."""

    code = "permission_denied"
    status = 403
    detail = "This needs administrator rights."


class AccountErasedError(ShopAssistError):
    """The caller's account is being erased, or was since the request came: nothing is stored of them now."""

    code = "account_erased"
    status = 409
    detail = "This account is being erased, or just was. Nothing was stored and nothing charged; ask again in a moment."


class GuestMergedError(ShopAssistError):
    """A guest's session that was merged already, into another account."""

    code = "guest_already_merged"
    status = 409
    detail = "This guest session was merged into an account before; that is done once."


class NotFoundError(ShopAssistError):
    """What was asked for does not exist."""

    code = "not_found"
    status = 404
    detail = "Not found."


class NoRolloutError(ShopAssistError):
    """A rollout was asked for where there is none."""

    code = "no_rollout"
    status = 409
    detail = "This server does not run with STORAGE=rollout."


class InvalidInputError(ShopAssistError):
    """A value breaks a rule that the schema of the request cannot express."""

    code = "invalid_input"
    status = 422
    detail = "The request is not valid."


class IntegrityError(ShopAssistError):
    """A write broke a rule of the data; nothing was changed."""

    code = "integrity_error"
    status = 409
    detail = "The change conflicts with what is stored."


class CreditsExhaustedError(ShopAssistError):
    """The caller has no credit left for the question."""

    code = "credits_exhausted"
    status = 429
    detail = "No credits left."


class GuestLimitError(ShopAssistError):
    """More new guests than may come from one network in a day; those who have been here before are not concerned."""

    code = "guest_limit_reached"
    status = 429
    detail = "Too many new guests have come from your network today. Please log in to go on."


class RateLimitedError(ShopAssistError):
    """Asked too often; `retry_after` seconds from now there is room again."""

    code = "rate_limited"
    status = 429
    detail = "Too many requests in a short time. Please wait a moment."

    def __init__(self, retry_after: int) -> None:
        """In whole seconds."""
        super().__init__()
        self.retry_after = retry_after


class BodyTooLargeError(ShopAssistError):
    """A request with a larger body than is read."""

    code = "body_too_large"
    status = 413
    detail = "The body of a request may have 64 KB at the most."


class BodyEncodedError(ShopAssistError):
    """A request whose body is compressed: how large it is would be known too late."""

    code = "unsupported_encoding"
    status = 415
    detail = "The body of a request must be sent as it is, not compressed."


class HostNotAllowedError(ShopAssistError):
    """A request to a host name that this server does not answer to."""

    code = "host_not_allowed"
    status = 400
    detail = "This server does not answer to that host name."


class KeyReusedError(ShopAssistError):
    """An idempotency key that came with another request before."""

    code = "idempotency_key_reused"
    status = 422
    detail = "This Idempotency-Key was used with another request."


class KeyInFlightError(ShopAssistError):
    """An idempotency key whose first request is still being worked on."""

    code = "idempotency_key_in_flight"
    status = 409
    detail = "The request with this Idempotency-Key is still being worked on."


class ClientGoneError(ShopAssistError):
    """Whoever asked has gone: nobody reads this."""

    code = "client_gone"
    status = 499
    detail = "The client has gone. Nothing was charged."


class OverdrawError(ShopAssistError):
    """An adjustment that the account cannot bear."""

    code = "overdraw"
    status = 409
    detail = "The account does not have as many credits to take, or cannot hold as many more."


class StorageUnavailableError(ShopAssistError):
    """The database cannot be reached or has no connection to spare."""

    code = "storage_unavailable"
    status = 503
    retryable = True
    detail = "The service cannot reach its database right now. Nothing was charged; please try again shortly."


class TermsNotAcceptedError(ShopAssistError):
    """A consent record needs the terms accepted."""

    code = "terms_not_accepted"
    status = 400
    detail = "The terms must be accepted."


class ConsentExistsError(IntegrityError):
    """The user already has a consent record."""

    code = "consent_exists"
    status = 400
    detail = "A consent record already exists for this user."


class ConsentRequiredError(PermissionDeniedError):
    """The caller has not agreed to what must be agreed to first."""

    code = "consent_required"
    detail = "Please agree to the current terms first."


class NoticeOutdatedError(IntegrityError):
    """A grant that names a text which is not the current one of its purpose."""

    code = "notice_outdated"
    detail = "This notice is not the current one: show the current notice and ask again."


class PrivacySignalError(IntegrityError):
    """A grant that comes with a browser's signal which says the opposite."""

    code = "privacy_signal_conflict"
    detail = (
        "Your browser sends Global Privacy Control (Sec-GPC: 1), which says no to this. Nothing was recorded: switch "
        "the signal off for this site to agree, or leave this purpose out."
    )


class NoticeExistsError(IntegrityError):
    """A text is published in that place already, and published texts stay as they are."""

    code = "notice_exists"
    detail = "This version is published in this language already, and what is published stays as it is."


class StartupError(ShopAssistError):
    """The process cannot start; `detail` is the one sentence shown before it exits."""

    code = "startup_failed"


class DatabaseAbsentError(StartupError):
    """The database cannot be reached while the process starts."""

    code = "database_absent"


class DatabaseLostError(ShopAssistError):
    """The database has been away for too long or cannot be worked with: the process ends, and `detail` says why."""

    code = "database_lost"


class MigrationError(StartupError):
    """The schema could not be brought to, or is not at, the revision this code needs."""

    code = "migration_failed"


class BackupError(ShopAssistError):
    """A backup could not be made, proved or restored; `detail` says why, and nothing was changed."""

    code = "backup_failed"


class StateError(ShopAssistError):
    """A snapshot of the state could not be written, imported or compared; `detail` says why."""

    code = "state_failed"


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
