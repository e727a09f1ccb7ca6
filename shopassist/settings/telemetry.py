"""What the server shows of itself, and to whom."""

from pydantic import Field, SecretStr

from shopassist.settings.group import Group


class TelemetrySettings(Group):
    """What the server shows of itself, and to whom."""

    metrics_token: SecretStr | None = Field(
        default=None,
        alias="METRICS_TOKEN",
        min_length=16,
        description="what Prometheus shows as its bearer token; without it only who is on a private network may read",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="where traces are sent, by OTLP over HTTP; without it there are none",
    )
    service_name: str = Field(default="shopassist", alias="OTEL_SERVICE_NAME", description="in traces")
