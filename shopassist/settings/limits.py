"""How often the API may be asked."""

from pydantic import Field, PositiveInt

from shopassist.settings.group import Group


class LimitSettings(Group):
    """How often the API may be asked, by one caller and by all callers of one network; each process counts alone."""

    questions_per_minute: PositiveInt = Field(default=30, alias="RATE_LIMIT_QUESTIONS_PER_MINUTE")
    reads_per_minute: PositiveInt = Field(default=300, alias="RATE_LIMIT_READS_PER_MINUTE")
    network_factor: PositiveInt = Field(
        default=20, alias="RATE_LIMIT_NETWORK_FACTOR", description="how many times that the callers of one network may"
    )
