"""Configure structlog and library logging; only fields on the allow-list are logged."""

import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict

ALLOWED_FIELDS = frozenset(
    {
        "event", "level", "timestamp", "logger", "request_id", "trace_id", "method", "route", "status", "milliseconds",
        "error", "error_type", "job", "count", "revision", "path", "host", "port", "storage", "trace", "reason", "name",
        "operation", "side", "step",
    }
)  # fmt: skip
"""Fields that may be logged: no user ids, questions, tokens or DSNs."""


def drop_unlisted_fields(_: Any, __: str, event: EventDict) -> EventDict:
    """Drop every field that is not on the list."""
    return {key: value for key, value in event.items() if key in ALLOWED_FIELDS}


class LogLimit:
    """Limits how often events that callers cause are logged, and counts them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._silent_until: dict[str, float] = {}

    def count(self, event: str, interval_seconds: float) -> int:
        """Count an event. Return how many were not logged yet if one may be logged now, else 0."""
        self._counts[event] += 1
        now = self._clock()
        if now < self._silent_until.get(event, now):
            return 0
        self._silent_until[event] = now + interval_seconds
        return self._counts.pop(event)


class TracebackOnlyFormatter(logging.Formatter):
    """Formats log lines of libraries without the text of exceptions, which may contain personal data."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the first line, and where an exception happened."""
        bare = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        line, _, more = super().format(bare).partition("\n")
        line = f"{line}\n{more}" if more and record.levelno < logging.WARNING else line
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Return the type of an exception and its stack trace."""
        kind, _, trace = ei
        return "".join([*traceback.format_tb(trace), kind.__name__ if kind else ""])


class LogOutput:
    """Standard error. What cannot be written is dropped: a full disk or a closed pipe must not fail a request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a text if possible."""
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush if possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def discard_unwritable_output() -> None:
    """Discard what standard output and error cannot take, so that the end of the process does not fail on it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def configure_logging(level: str = "info") -> None:
    """Send structlog's events, and the warnings of libraries, to standard error."""
    output: Any = LogOutput(sys.stderr)
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            drop_unlisted_fields,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(TracebackOnlyFormatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler])
