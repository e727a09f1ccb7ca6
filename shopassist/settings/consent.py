"""What must be agreed to."""

from pydantic import Field

from shopassist.settings.group import Group


class ConsentSettings(Group):
    """Whether questions wait for an agreement, and how long a new version may be put off."""

    required: bool = Field(
        default=False,
        alias="CONSENT_REQUIRED",
        description="whether a question is answered only to those who agreed to the published terms",
    )
    grace_hours: float = Field(
        default=72,
        ge=0,
        le=8784,
        alias="CONSENT_GRACE_HOURS",
        description="how long an agreement to the version before a new one still does, unless its publisher says",
    )
