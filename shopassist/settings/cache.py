"""The query cache."""

from datetime import timedelta

from pydantic import Field, PositiveInt, SecretStr

from shopassist.settings.group import Group


class CacheSettings(Group):
    """The query cache."""

    validity_minutes: float = Field(default=60, gt=0, alias="CACHE_VALIDITY_MINUTES")
    stale_answers: int = Field(
        default=10_000, ge=0, alias="STALE_ANSWERS", description="kept by each process for a database that is away"
    )
    stale_bytes: PositiveInt = Field(
        default=64 * 2**20, alias="STALE_ANSWERS_BYTES", description="that they take in each process at the most"
    )
    stale_hours: float = Field(
        default=24, gt=0, le=24, alias="STALE_ANSWERS_HOURS", description="how old one may be when it is served"
    )

    redis_url: SecretStr | None = Field(
        default=None, alias="REDIS_URL", description="`redis://` or `rediss://`: where instances share answers"
    )

    @property
    def validity(self) -> timedelta:
        """How long an answer is served."""
        return timedelta(minutes=self.validity_minutes)

    @property
    def stale_lifetime(self) -> timedelta:
        """How old an answer may be that is served while the database is away."""
        return timedelta(hours=self.stale_hours)
