"""OpenTelemetry traces; spans carry no parameters, values or exception texts."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context, copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any

from shopassist.errors import StartupError
from shopassist.settings import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

OPENTELEMETRY_MISSING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
    "pip install -r requirements/tracing.txt, or unset it."
)
FLUSH_SECONDS = 1.5
"""How long the end of the process waits for the last spans to be sent."""

EXPORT_SECONDS = 3.0
NO_SPAN: AbstractContextManager[None] = nullcontext()

_tracer: "Tracer | None" = None
_provider: "TracerProvider | None" = None


def start_tracing(settings: TelemetrySettings, version: str) -> None:
    """Send traces from now on, if an endpoint is set. Raises `StartupError` when OpenTelemetry is not installed."""
    global _tracer, _provider
    if settings.otlp_endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - it takes a while, and most do without
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise StartupError(OPENTELEMETRY_MISSING) from None
    resource = Resource.create({"service.name": settings.service_name, "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    endpoint = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=EXPORT_SECONDS)))
    _provider, _tracer = provider, provider.get_tracer("shopassist", version)


def stop_tracing() -> None:
    """Send what is left, within bounded time, and make no more traces."""
    global _tracer, _provider  # noqa: PLW0603
    if _provider is None:
        return
    # OpenTelemetry's own limits are 30 seconds, and do not hold while it sends.
    last = Thread(target=_provider.shutdown, daemon=True)
    _tracer = _provider = None
    last.start()
    last.join(FLUSH_SECONDS)


def is_tracing() -> bool:
    """Return whether traces are sent."""
    return _tracer is not None


def span(name: str) -> AbstractContextManager["Span | None"]:
    """A block of work, named by one of few words."""
    return NO_SPAN if _tracer is None else _span(_tracer, name, {})


@contextmanager
def _span(tracer: "Tracer", name: str, attributes: dict[str, str]) -> Iterator["Span"]:
    from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415

    kind = SpanKind.CLIENT if "db.system.name" in attributes else SpanKind.INTERNAL
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            # Its kind alone: the text may hold what somebody sent.
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(Status(StatusCode.ERROR))
            raise


def statement_span(statement: str) -> AbstractContextManager["Span | None"]:
    """A statement on its way to PostgreSQL; `statement` has names or numbers in place of its parameters."""
    if _tracer is None:
        return NO_SPAN
    return _span(_tracer, get_statement_operation(statement), build_statement_attributes(statement))


def build_statement_attributes(statement: str) -> dict[str, str]:
    """What a statement's span carries."""
    return {"db.system.name": "postgresql", "db.query.text": statement}


def get_statement_operation(statement: str) -> str:
    """The first word of a statement."""
    return next(iter(statement.split(None, 1)), "statement").upper()


def copy_trace_context() -> Context | None:
    """The context that work done later is to be seen as part of; None without traces."""
    return None if _tracer is None else copy_context()


class RequestSpan:
    """The span of one HTTP request."""

    def __init__(self, headers: list[tuple[bytes, bytes]], request_id: str) -> None:
        """It goes on with the trace that the caller's `traceparent` names, if there is one."""
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        assert _tracer is not None  # noqa: S101 - `request_span` looked
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        parent = TraceContextTextMapPropagator().extract(carrier)
        self._span = _tracer.start_span("request", parent, trace.SpanKind.SERVER, {"shopassist.request_id": request_id})
        self._current = trace.use_span(
            self._span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        )
        self.trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)

    def begin(self) -> None:
        """From now on spans are part of it."""
        self._current.__enter__()

    def end(self, method: str, route: str | None, status: int) -> None:
        """It is over. `route` is the template, never the path."""
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        self._span.update_name(f"{method} {route}" if route else method)
        self._span.set_attributes({"http.request.method": method, "http.response.status_code": status})
        if route:
            self._span.set_attribute("http.route", route)
        if status >= 500:  # noqa: PLR2004 - HTTP's server errors
            self._span.set_status(Status(StatusCode.ERROR))
        self._current.__exit__(None, None, None)


def request_span(headers: list[tuple[bytes, bytes]], request_id: str) -> RequestSpan | None:
    """The span of a request; None without traces."""
    return None if _tracer is None else RequestSpan(headers, request_id)


def trace_statements(engine: Any) -> None:
    """Make a span of each statement that a synchronous SQLAlchemy engine sends, if there are traces by now."""
    if _tracer is None:
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415
    from sqlalchemy import event  # noqa: PLC0415

    tracer = _tracer

    def before(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
        context.shopassist_span = tracer.start_span(
            get_statement_operation(statement), kind=SpanKind.CLIENT, attributes=build_statement_attributes(statement)
        )

    def after(_: Any, __: Any, ___: str, ____: Any, context: Any, _____: bool) -> None:
        context.shopassist_span.end()

    def failed(failure: Any) -> None:
        opened = getattr(failure.execution_context, "shopassist_span", None)
        if opened is not None and opened.is_recording():
            opened.set_attribute("error.type", type(failure.original_exception).__name__)
            opened.set_status(Status(StatusCode.ERROR))
            opened.end()

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "handle_error", failed)
