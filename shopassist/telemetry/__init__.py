"""What the product says about itself: logs, figures for Prometheus, traces."""

from shopassist.telemetry.logs import configure_logging

__all__ = ["configure_logging"]
