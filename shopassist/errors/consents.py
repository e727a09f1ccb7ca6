"""What was agreed to."""

from shopassist.errors.callers import PermissionDeniedError
from shopassist.errors.family import ShopAssistError
from shopassist.errors.requests import IntegrityError


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
