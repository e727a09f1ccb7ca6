"""OpenTelemetry traces; spans carry no parameters, values or exception texts."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context, copy_context
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shopassist.errors import StartupError
from shopassist.settings import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

OPENTELEMETRY_MISSING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
    "pip install -r requirements/tracing.txt, or unset it."
)
FLUSH_SECONDS = 1.5
"""How long the process waits at its end for the last spans to be sent."""

EXPORT_SECONDS = 3.0
NO_SPAN: AbstractContextManager[None] = nullcontext()

_tracer: Tracer | None = None
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


# Exceptions are not recorded: their text may contain user input.
_use_span = partial(use_span, end_on_exit=True, record_exception=False, set_status_on_exception=False)


def span(name: str) -> AbstractContextManager[Span | None]:
    """Trace a block of work; `name` is one of a few fixed words."""
    return NO_SPAN if _tracer is None else _trace_block(_tracer.start_span(name))


def statement_span(statement: str) -> AbstractContextManager[Span | None]:
    """Trace a statement for PostgreSQL, which has placeholders instead of parameters."""
    return NO_SPAN if _tracer is None else _trace_block(_start_statement(_tracer, statement))


@contextmanager
def _trace_block(current: Span) -> Iterator[Span]:
    with _use_span(current):
        try:
            yield current
        except BaseException as error:
            _mark_failed(current, error)
            raise


def _start_statement(tracer: Tracer, statement: str) -> Span:
    operation = next(iter(statement.split(None, 1)), "statement").upper()
    attributes = {"db.system.name": "postgresql", "db.query.text": statement}
    return tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)


def _mark_failed(current: Span, error: BaseException | None = None) -> None:
    if error is not None:
        current.set_attribute("error.type", type(error).__name__)
    current.set_status(Status(StatusCode.ERROR))


def copy_trace_context() -> Context | None:
    """Return the context that later work belongs to, or None without tracing."""
    return None if _tracer is None else copy_context()


def request_span(headers: list[tuple[bytes, bytes]], request_id: str) -> AbstractContextManager[Span | None]:
    """Trace an HTTP request as part of the trace in the client's `traceparent`, or of a new one."""
    if _tracer is None:
        return NO_SPAN
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    parent = TraceContextTextMapPropagator().extract(carrier)
    return _use_span(_tracer.start_span("request", parent, SpanKind.SERVER, {"shopassist.request_id": request_id}))


def describe_request(current: Span, method: str, route: str | None, status: int) -> None:
    """Name the span of a request and set its attributes. `route` is the template, never the path."""
    current.update_name(f"{method} {route}" if route else method)
    current.set_attributes({"http.request.method": method, "http.response.status_code": status})
    if route:
        current.set_attribute("http.route", route)
    if status >= 500:  # noqa: PLR2004 - HTTP's server errors
        _mark_failed(current)


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
