"""What stays known of people who were erased."""

from datetime import timedelta

from pydantic import Field

from shopassist.settings.group import Group


class PrivacySettings(Group):
    """What stays known of people who were erased."""

    erasure_list_days: int = Field(
        default=365,
        ge=1,
        le=36500,
        alias="ERASURE_LIST_DAYS",
        description="how long the list of erasures is kept; no backup that is older may be restored",
    )

    @property
    def erasure_list_lifetime(self) -> timedelta:
        """How long an erasure stays on the list."""
        return timedelta(days=self.erasure_list_days)
