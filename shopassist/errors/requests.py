"""What is asked, and how much of it."""

from shopassist.errors.family import ShopAssistError


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
