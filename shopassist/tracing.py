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
"""How long the process waits at its end for the last spans to be sent."""

EXPORT_SECONDS = 3.0
NO_SPAN: AbstractContextManager[None] = nullcontext()

_tracer: "Tracer | None" = None
_provider: "TracerProvider | None" = None


def start_tracing(settings: TelemetrySettings, version: str) -> None:
    """Start tracing if an endpoint is set. Raises `StartupError` if OpenTelemetry is not installed."""
    global _tracer, _provider
    if settings.otlp_endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - slow, and optional
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
    """Send the remaining spans, within `FLUSH_SECONDS`, and stop tracing."""
    global _tracer, _provider  # noqa: PLW0603
    if _provider is None:
        return
    # OpenTelemetry's own limit is 30 seconds, and does not apply while it sends.
    flush = Thread(target=_provider.shutdown, daemon=True)
    _tracer = _provider = None
    flush.start()
    flush.join(FLUSH_SECONDS)


def is_tracing() -> bool:
    """Return whether traces are sent."""
    return _tracer is not None


def span(name: str) -> AbstractContextManager["Span | None"]:
    """Trace a block of work; `name` is one of a few fixed words."""
    return NO_SPAN if _tracer is None else _trace_block(_tracer, name)


def statement_span(statement: str) -> AbstractContextManager["Span | None"]:
    """Trace a statement for PostgreSQL, which has placeholders instead of parameters."""
    return NO_SPAN if _tracer is None else _trace_block(_tracer, _get_operation(statement), statement)


@contextmanager
def _trace_block(tracer: "Tracer", name: str, statement: str | None = None) -> Iterator["Span"]:
    from opentelemetry.trace import SpanKind, use_span  # noqa: PLC0415

    if statement is None:
        current = tracer.start_span(name, kind=SpanKind.INTERNAL)
    else:
        current = _start_statement(tracer, statement)
    with use_span(current, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield current
        except BaseException as error:
            _mark_failed(current, error)
            raise


def _start_statement(tracer: "Tracer", statement: str) -> "Span":
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    attributes = {"db.system.name": "postgresql", "db.query.text": statement}
    return tracer.start_span(_get_operation(statement), kind=SpanKind.CLIENT, attributes=attributes)


def _mark_failed(current: "Span", error: BaseException | None = None) -> None:
    """Set the error status, and the type of the error: its text may contain user input."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    if error is not None:
        current.set_attribute("error.type", type(error).__name__)
    current.set_status(Status(StatusCode.ERROR))


def _get_operation(statement: str) -> str:
    return next(iter(statement.split(None, 1)), "statement").upper()


def copy_trace_context() -> Context | None:
    """Return the context that later work belongs to, or None without tracing."""
    return None if _tracer is None else copy_context()


class RequestSpan:
    """The span of an HTTP request."""

    def __init__(self, tracer: "Tracer", headers: list[tuple[bytes, bytes]], request_id: str) -> None:
        """Start a span in the trace of the client's `traceparent`, or in a new one."""
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        parent = TraceContextTextMapPropagator().extract(carrier)
        self._span = tracer.start_span("request", parent, trace.SpanKind.SERVER, {"shopassist.request_id": request_id})
        self._current = trace.use_span(
            self._span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        )
        self.trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)

    def begin(self) -> None:
        """Make it the parent of the spans that follow."""
        self._current.__enter__()

    def end(self, method: str, route: str | None, status: int) -> None:
        """End the span. `route` is the template, never the path."""
        self._span.update_name(f"{method} {route}" if route else method)
        self._span.set_attributes({"http.request.method": method, "http.response.status_code": status})
        if route:
            self._span.set_attribute("http.route", route)
        if status >= 500:  # noqa: PLR2004 - HTTP's server errors
            _mark_failed(self._span)
        self._current.__exit__(None, None, None)


def request_span(headers: list[tuple[bytes, bytes]], request_id: str) -> RequestSpan | None:
    """Start the span of a request, or return None without tracing."""
    return None if _tracer is None else RequestSpan(_tracer, headers, request_id)


def trace_statements(engine: Any) -> None:
    """Trace each statement of a synchronous SQLAlchemy engine, if tracing was started."""
    if _tracer is None:
        return
    from sqlalchemy import event  # noqa: PLC0415

    tracer = _tracer

    def start(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
        context.shopassist_span = _start_statement(tracer, statement)

    def end(_: Any, __: Any, ___: str, ____: Any, context: Any, _____: bool) -> None:
        context.shopassist_span.end()

    def fail(failure: Any) -> None:
        current = getattr(failure.execution_context, "shopassist_span", None)
        if current is not None and current.is_recording():
            _mark_failed(current, failure.original_exception)
            current.end()

    event.listen(engine, "before_cursor_execute", start)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", fail)
