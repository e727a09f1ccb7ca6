"""How many credits there are and when they come back."""

from datetime import timedelta

from pydantic import Field, PositiveInt

from shopassist.settings.group import Group


class CreditSettings(Group):
    """How many credits there are and when they come back."""

    max_guest_credits: PositiveInt = Field(default=10, alias="MAX_GUEST_CREDITS")
    max_registered_credits: PositiveInt = Field(default=50, alias="MAX_REGISTERED_CREDITS")
    reset_interval_hours: float = Field(default=24, gt=0, alias="CREDIT_RESET_INTERVAL_HOURS")
    hold_lifetime_seconds: PositiveInt = Field(default=60, alias="CREDIT_HOLD_TTL_SECONDS")
    retention_days: int = Field(default=90, ge=1, le=36500, alias="TRANSACTION_RETENTION_DAYS")

    @property
    def reset_interval(self) -> timedelta:
        """How long a registered user's period is."""
        return timedelta(hours=self.reset_interval_hours)

    @property
    def hold_lifetime(self) -> timedelta:
        """How long a credit is held for work in progress at the most."""
        return timedelta(seconds=self.hold_lifetime_seconds)
