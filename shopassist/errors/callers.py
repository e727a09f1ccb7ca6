"""Who asks, and what they may do."""

from shopassist.errors.family import ShopAssistError


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
