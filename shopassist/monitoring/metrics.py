"""Metrics of all parts of the product, and their route. docs/runbook.md explains those with an alert."""

import asyncio
import hmac
import os
import platform
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from shopassist import __version__
from shopassist.api.dependencies import SettingsDep, get_container
from shopassist.api.error_handlers import ErrorBody
from shopassist.db.migrate import list_known_revisions
from shopassist.errors import AuthenticationError, InvalidTokenError, PermissionDeniedError, TokenRefusal
from shopassist.identity.caller import parse_address
from shopassist.metrics import (
    PUBLISH_INTERVAL_SECONDS,
    MetricFamily,
    Samples,
    SharedMetrics,
    counter,
    gauge,
    histogram,
    render_families,
)
from shopassist.privacy.models import AskedBy

logger = structlog.get_logger(__name__)

PROCESS_STARTED_AT = time.time()
BREAKER_STATES = ("closed", "open", "half_open")
POOL_STATES = ("size", "checked_out", "idle", "overflow")


def collect_families(services: Any) -> list[MetricFamily]:
    """Return all metrics of this process. Call this in its event loop."""
    parts = _collect_requests, _collect_database, _collect_credits, _collect_cache, _collect_jobs, _collect_process
    families = [family for collect in parts for family in collect(services)]
    return families + [family for service in services.background_services() for family in service.collect_metrics()]


def _build_counters(prefix: str, *counters: tuple[str, str, Samples]) -> Iterator[MetricFamily]:
    return (counter(f"shopassist_{prefix}_{name}", help_, samples) for name, help_, samples in counters)


def _flag_state(state: object) -> dict[str, float]:
    return {known: float(known == state) for known in BREAKER_STATES}


def _collect_requests(services: Any) -> Iterator[MetricFamily]:
    requests = services.request_metrics()
    yield histogram(
        "shopassist_http_request_duration_seconds",
        "Duration of HTTP requests by route template and status class, until the last byte was sent.",
        requests.seconds,
        *("method", "route", "status"),
    )
    yield gauge("shopassist_http_requests_in_progress", "HTTP requests in progress.", requests.in_progress)
    yield counter(
        "shopassist_errors",
        "Refused or failed requests by error_type, rate_limited and credits_exhausted among them.",
        requests.errors,
        "error_type",
    )
    refused = {kind.value: float(requests.refused_tokens[kind]) for kind in TokenRefusal}
    yield counter("shopassist_tokens_refused", "Refused access tokens by the kind of fault.", refused, "kind")


def _collect_database(services: Any) -> Iterator[MetricFamily]:
    yield gauge(
        "shopassist_database_down_seconds",
        "How long the database has not answered; 0 if it answers.",
        services.availability().status()["database_away_seconds"],
        aggregation="max",
    )
    resilience = services.resilience().get_counters()
    breaker = _flag_state(resilience["breaker"])
    yield gauge("shopassist_database_breaker", "Processes by the state of their circuit breaker.", breaker, "state")
    yield from _build_counters(
        "database",
        ("breaker_openings", "How often a circuit breaker opened.", resilience["opened"]),
        ("retries", "Retries of statements and units of work.", resilience["retries"]),
        ("retry_budget_exhausted", "Retries refused by the retry budget.", resilience["retries_refused"]),
        ("pool_timeouts", "Waits for a connection that timed out.", resilience["waits_in_vain"]),
        ("unknown_outcomes", "Connections lost during a statement; its result was looked up.", resilience["lost"]),
    )
    database = services.database()
    if database is None:
        return
    pools = {
        (pool, state): float(status[state])
        for pool, status in (("units", database.pool_status()), ("hot", database.direct_pool.get_status()))
        for state in POOL_STATES
        if state in status
    }
    yield gauge("shopassist_database_connections", "Connections by pool and state.", pools, "pool", "state")
    limits = database.count_max_connections()
    yield gauge("shopassist_database_connections_max", "Maximum number of connections by pool.", limits, "pool")
    waits, batches = database.waits, database.batch_sizes
    yield histogram("shopassist_database_wait_seconds", "Waits for a connection by pool.", waits, "pool")
    yield histogram("shopassist_database_batch_size", "Requests per batched statement by kind.", batches, "kind")


def _collect_credits(services: Any) -> Iterator[MetricFamily]:
    """Yield the metrics of the ledger, of consents and of erasures."""
    ledger = services.ledger_counters()
    holds = {event: float(getattr(ledger, event)) for event in ("held", "settled", "voided", "expired")}
    yield counter("shopassist_credit_holds", "Credit holds: held, settled, voided or expired.", holds, "event")
    yield counter("shopassist_credit_deductions", "Deductions without a hold.", ledger.deducted)
    yield counter("shopassist_credit_refusals", "Holds and deductions refused for lack of credits.", ledger.refused)
    if report := services.ledger_reconciliation().last_report:
        finished_at = report.finished_at.timestamp()
        for name, help_, value in (
            ("drifting_accounts", "Accounts with a balance that differed from the ledger.", report.drifting_accounts),
            ("accounts", "Accounts that were verified.", report.accounts),
            ("verified_timestamp_seconds", "When the ledger was last verified.", finished_at),
        ):
            yield gauge(f"shopassist_ledger_{name}", help_, value, aggregation="latest", measured_at=finished_at)
    decisions = {labels: float(count) for labels, count in services.consent_counters().decisions.items()}
    yield counter("shopassist_consent_decisions", "Consents by purpose and decision.", decisions, "purpose", "decision")
    finished = services.erasure_counters()
    erasures = {origin.value: float(finished[origin]) for origin in AskedBy}
    yield counter("shopassist_erasures", "Finished erasures by origin of the request.", erasures, "asked_by")


def _collect_cache(services: Any) -> Iterator[MetricFamily]:
    hits, misses = services.query_cache_service().lookups()
    shared, stale = services.shared_answers(), services.stale_answers().status()
    shared_hits = 0 if shared is None else shared.metrics.hits
    yield counter(
        "shopassist_query_cache_hits",
        "Cached answers by tier; memory is only used while the database is down.",
        {"database": hits - shared_hits, "redis": shared_hits, "memory": stale["served"]},
        "tier",
    )
    yield counter("shopassist_query_cache_misses", "Questions without a valid answer in the database.", misses)
    yield gauge("shopassist_stale_answers", "Answers kept in memory.", stale["answers"])
    yield gauge("shopassist_stale_answers_bytes", "Size of the answers kept in memory.", stale["bytes"])
    if shared is None:
        return
    breaker = shared.client.breaker
    states, help_ = _flag_state(breaker.state), "Processes by the state of their circuit breaker for Redis."
    yield gauge("shopassist_shared_cache_breaker", help_, states, "state")
    yield from _build_counters(
        "shared_cache",
        ("breaker_openings", "How often the circuit breaker for Redis opened.", breaker.times_opened),
        ("failures", "Redis commands that failed or timed out.", shared.client.failures),
        ("misses", "Answers that were not in Redis.", shared.metrics.misses),
        ("refused", "Values in Redis with a wrong signature, or damaged.", shared.metrics.refused),
        ("kept", "Answers stored in Redis.", shared.metrics.kept),
    )


def _collect_jobs(services: Any) -> Iterator[MetricFamily]:
    scheduler = services.jobs()
    states = scheduler.states
    runs = {
        (name, outcome): float(count) for name, state in states.items() for outcome, count in state.outcomes.items()
    }
    yield gauge("shopassist_scheduler_leader", "Processes that run the scheduled jobs.", scheduler.is_leader)
    yield counter("shopassist_job_runs", "Job runs by name and outcome.", runs, "name", "outcome")
    work = {name: float(state.rows) for name, state in states.items()}
    yield counter("shopassist_job_work", "Rows removed or refilled, or accounts verified, by job.", work, "name")
    intervals = {job.name: job.every.total_seconds() for job in scheduler.jobs}
    succeeded_at = {name: state.last_success_at for name, state in states.items() if state.last_success_at}
    seconds = {name: state.seconds for name, state in states.items() if state.outcomes}
    for metric, help_, samples in (
        ("last_success_timestamp_seconds", "When a job last succeeded.", succeeded_at),
        ("interval_seconds", "Interval of a job.", intervals),
        ("seconds", "Duration of a job's last run.", seconds),
    ):
        yield gauge(f"shopassist_job_{metric}", help_, samples, "name", aggregation="max")


def _collect_process(services: Any) -> Iterator[MetricFamily]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield counter("shopassist_process_starts", "Processes that started to serve.", 1.0)
    yield gauge("shopassist_processes", "Processes that serve.", 1.0)
    yield gauge("shopassist_tasks", "Tasks of the event loops.", len(asyncio.all_tasks()))
    yield counter("process_cpu_seconds", "CPU time.", usage.ru_utime + usage.ru_stime)
    yield gauge("process_resident_memory_bytes", "Resident memory.", _read_resident_bytes(usage.ru_maxrss))
    started = "Start time of the youngest process."
    yield gauge("process_start_time_seconds", started, PROCESS_STARTED_AT, aggregation="max")
    storage = services.settings().storage.storage.value
    yield gauge(
        "shopassist_build_info",
        "Version, required schema revision, Python version and storage.",
        {(__version__, list_known_revisions()[-1], platform.python_version(), storage): 1.0},
        *("version", "schema_revision", "python", "storage"),
        aggregation="max",
    )


def _read_resident_bytes(max_kilobytes: int) -> float:
    """Return the resident memory, or the process' maximum where the system does not tell the current value."""
    if sys.platform == "linux":
        return float(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return float(max_kilobytes)


router = APIRouter(tags=["status"])

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers of a proxy, which may act for any client."""

METRICS_REFUSED = "Metrics are for private networks, asked directly. Set METRICS_TOKEN to read them from elsewhere."


@asynccontextmanager
async def publishing_metrics(services: Any, shared: SharedMetrics | None) -> AsyncIterator[None]:
    """Publish the metrics of this process to the others during the block, and once more at its end."""
    if shared is None:
        yield
        return
    task = asyncio.create_task(_publish_forever(services, shared))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(OSError):
            shared.publish(collect_families(services), time.monotonic())


async def _publish_forever(services: Any, shared: SharedMetrics) -> None:
    is_failing = False
    while True:
        try:
            await asyncio.to_thread(shared.publish, collect_families(services), time.monotonic())
            is_failing = False
        except OSError as error:
            if not is_failing:
                logger.warning("metrics_publish_failed", error=type(error).__name__)
            is_failing = True
        await asyncio.sleep(PUBLISH_INTERVAL_SECONDS)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Metrics in the Prometheus text format."},
        401: {"model": ErrorBody, "description": "METRICS_TOKEN is set, and the bearer token differs."},
        403: {"model": ErrorBody, "description": METRICS_REFUSED},
    },
)
async def read_metrics(request: Request, settings: SettingsDep) -> Response:
    """Return the metrics of all processes together. They contain no personal data."""
    require_metrics_access(request, settings.telemetry.metrics_token)
    shared: SharedMetrics | None = request.app.state.shared_metrics
    families, measured_at = collect_families(get_container(request)), time.monotonic()

    def render() -> tuple[bytes, str]:
        if shared is None:
            return render_families(families, accept)
        shared.publish(families, measured_at)
        return render_families(shared.gather(), accept)

    accept = request.headers.get("accept", "")
    text, content_type = await asyncio.to_thread(render)
    return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def require_metrics_access(request: Request, token: SecretStr | None) -> None:
    """Require METRICS_TOKEN (`token`) or, if it is not set, a direct request from a private network.

    Raises `AuthenticationError`, `InvalidTokenError` and `PermissionDeniedError`.
    """
    if token is None:
        if not is_private_client(request):
            raise PermissionDeniedError(METRICS_REFUSED)
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationError
    if not hmac.compare_digest(given.strip().encode(), token.get_secret_value().encode()):
        raise InvalidTokenError(TokenRefusal.METRICS)


def is_private_client(request: Request) -> bool:
    """Return whether the client is on this machine or a private network, without a proxy between."""
    if request.client is None or any(name in request.headers for name in PROXY_HEADERS):
        return False
    address = parse_address(request.client.host)
    return address is not None and address.is_private  # also true of loopback
