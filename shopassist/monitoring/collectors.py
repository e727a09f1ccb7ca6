"""Collect the metrics of all parts of the product into metric families."""

import asyncio
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shopassist import __version__
from shopassist.cache.redis import SharedCacheMetrics
from shopassist.cache.redis_client import RedisClient
from shopassist.db.migrate import list_known_revisions
from shopassist.metrics.registry import Aggregation, Labels, MetricFamily, SampleValue, counter, gauge, histogram
from shopassist.monitoring.services import Services
from shopassist.privacy.models import AskedBy

PROCESS_STARTED_AT = time.time()
BREAKER_STATES = ("closed", "open", "half_open")
POOL_STATES = ("size", "checked_out", "idle", "overflow")


def collect_families(container: Services) -> list[MetricFamily]:
    """Everything this process has to show, read in its event loop."""
    return [
        *_collect_requests(container),
        *_collect_database(container),
        *_collect_credits(container),
        *_collect_privacy(container),
        *_collect_cache(container),
        *(family for service in container.background_services() for family in service.collect_metrics()),
        *_collect_jobs(container),
        *_collect_process(container),
    ]


def _collect_requests(container: Services) -> Iterator[MetricFamily]:
    figures = container.request_figures()
    yield histogram(
        "shopassist_http_request_duration_seconds",
        "HTTP requests by route template and class of status, until the last byte was handed over.",
        figures.seconds,
        *("method", "route", "status"),
    )
    yield gauge("shopassist_http_requests_under_way", "HTTP requests that are being served.", figures.under_way)
    yield counter(
        "shopassist_errors",
        "Requests refused or failed, by error_type; rate_limited and credits_exhausted are among them.",
        dict(figures.errors),
        "error_type",
    )


def _collect_database(container: Services) -> Iterator[MetricFamily]:
    away = float(container.availability().status()["database_away_seconds"])
    yield gauge(
        *("shopassist_database_away_seconds", "For how long the database has not answered; 0 when it does.", away),
        across=Aggregation.MOST,
    )
    seen = container.resilience().figures()
    states: dict[Labels, SampleValue] = {(state,): float(state == seen["breaker"]) for state in BREAKER_STATES}
    yield gauge("shopassist_database_breaker", "Processes whose circuit breaker is in a state.", states, "state")
    for name, help_, key in (
        ("breaker_openings", "How often a circuit breaker opened.", "opened"),
        ("retries", "Statements and units of work that were tried again.", "retries"),
        ("retries_refused", "Retries for which the budget had nothing left.", "retries_refused"),
        ("waits_in_vain", "Waits for a connection that ended without one.", "waits_in_vain"),
        ("unknown_outcomes", "Connections lost with a statement on its way; what came of it was looked up.", "lost"),
    ):
        yield counter(f"shopassist_database_{name}", help_, seen[key])
    database = container.database()
    if database is None:
        return
    pools: dict[Labels, SampleValue] = {}
    for pool, status in (("units", database.pool_status()), ("hot", database.hot.status())):
        pools |= {(pool, state): float(status[state]) for state in POOL_STATES if state in status}
    yield gauge("shopassist_database_connections", "Connections by pool and state.", pools, "pool", "state")
    most = database.most_connections()
    yield gauge("shopassist_database_connections_most", "Connections that a pool may open.", most, "pool")
    waits = database.figures.waits
    yield histogram("shopassist_database_wait_seconds", "Waits for a connection by pool.", waits, "pool")
    yield histogram(
        "shopassist_database_batch_size",
        "Requests that shared one statement, by what they asked.",
        database.figures.batches,
        "kind",
    )


def _collect_credits(container: Services) -> Iterator[MetricFamily]:
    figures = container.ledger_figures()
    holds: dict[Labels, SampleValue] = {
        (event,): float(getattr(figures, event)) for event in ("held", "settled", "voided", "expired")
    }
    yield counter(
        "shopassist_credit_holds",
        "Holds of credits by what was done: held for a question, settled, voided, or expired.",
        *(holds, "event"),
    )
    yield counter("shopassist_credit_deductions", "Deductions without a hold.", figures.deducted)
    yield counter("shopassist_credit_refusals", "Holds and deductions refused for want of credits.", figures.refused)
    if report := container.ledger_audit().last:
        at = report.finished_at.timestamp()
        for name, help_, value in (
            ("drifting_accounts", "Accounts whose balance differed from the ledger.", report.drifting_accounts),
            ("accounts", "Accounts that were verified.", report.accounts),
            ("verified_timestamp_seconds", "When the ledger was last verified.", at),
        ):
            yield gauge(f"shopassist_ledger_{name}", help_, value, across=Aggregation.LATEST, at=at)


def _collect_privacy(container: Services) -> Iterator[MetricFamily]:
    decisions: dict[Labels, SampleValue] = {
        labels: float(count) for labels, count in container.consent_counters().decisions.items()
    }
    erasure_counts = container.erasure_counters().erasures
    erasures: dict[Labels, SampleValue] = {(one.value,): float(erasure_counts[one]) for one in AskedBy}
    yield counter(
        "shopassist_consent_decisions", "Grants and withdrawals by purpose.", decisions, "purpose", "decision"
    )
    yield counter("shopassist_erasures", "Erasures that were finished, by who asked for them.", erasures, "asked_by")


def _collect_cache(container: Services) -> Iterator[MetricFamily]:
    hits, misses = container.query_cache_service().lookups()
    shared, stale = container.shared_answers(), container.stale_answers().figures()
    yield counter(
        "shopassist_query_cache_hits",
        "Answers given again, by where they were; memory is asked only while the database is away.",
        {("database",): hits - shared.figures.hits, ("redis",): shared.figures.hits, ("memory",): stale["served"]},
        "tier",
    )
    yield counter("shopassist_query_cache_misses", "Questions for which the database had no valid answer.", misses)
    yield gauge("shopassist_stale_answers", "Answers kept in memory.", stale["answers"])
    yield gauge("shopassist_stale_answers_bytes", "What they take.", stale["bytes"])
    if shared.link is not None:
        yield from _collect_shared_cache(shared.figures, shared.link)


def _collect_shared_cache(figures: SharedCacheMetrics, link: RedisClient) -> Iterator[MetricFamily]:
    states: dict[Labels, SampleValue] = {(state,): float(state == link.breaker.state) for state in BREAKER_STATES}
    yield gauge(
        "shopassist_shared_cache_breaker", "Processes whose circuit breaker for Redis is in a state.", states, "state"
    )
    for name, help_, value in (
        ("breaker_openings", "How often Redis was found to be away.", link.breaker.times_opened),
        ("failures", "Commands that Redis did not answer in time, or refused.", link.failures),
        ("misses", "Answers that were not in Redis.", figures.misses),
        ("refused", "Values in Redis that were none of ours, or damaged.", figures.refused),
        ("kept", "Answers that were put into Redis.", figures.kept),
    ):
        yield counter(f"shopassist_shared_cache_{name}", help_, value)


def _collect_jobs(container: Services) -> Iterator[MetricFamily]:
    jobs = container.jobs()
    turns = jobs.states()
    runs: dict[Labels, SampleValue] = {
        (name, outcome): float(count) for name, turn in turns.items() for outcome, count in turn.outcomes.items()
    }
    done: dict[Labels, SampleValue] = {
        (name,): turn.last_success_at for name, turn in turns.items() if turn.last_success_at
    }
    did: dict[Labels, SampleValue] = {(name,): float(turn.rows) for name, turn in turns.items()}
    every: dict[Labels, SampleValue] = {(job.name,): job.every.total_seconds() for job in jobs.jobs}
    took: dict[Labels, SampleValue] = {(name,): turn.seconds for name, turn in turns.items() if turn.outcomes}
    yield gauge("shopassist_scheduler_leader", "Processes that do the scheduled work.", jobs.is_leader)
    yield counter("shopassist_job_runs", "Scheduled work by name and outcome.", runs, "name", "outcome")
    yield counter(
        *("shopassist_job_work", "What scheduled work did: rows removed or refilled, accounts verified.", did, "name")
    )
    yield gauge(
        *("shopassist_job_done_timestamp_seconds", "When a job last ended well.", done, "name"), across=Aggregation.MOST
    )
    yield gauge(
        *("shopassist_job_every_seconds", "How often a job is to be done.", every, "name"), across=Aggregation.MOST
    )
    yield gauge("shopassist_job_seconds", "How long a job last took.", took, "name", across=Aggregation.MOST)


def _collect_process(container: Services) -> Iterator[MetricFamily]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield counter("shopassist_process_starts", "Processes that began to serve.", 1.0)
    yield gauge("shopassist_processes", "Processes that serve.", 1.0)
    yield gauge("shopassist_tasks", "Tasks of the event loops.", len(asyncio.all_tasks()))
    yield counter("process_cpu_seconds", "Processor time.", used.ru_utime + used.ru_stime)
    yield gauge("process_resident_memory_bytes", "Memory in use.", _read_resident_bytes(used.ru_maxrss))
    yield gauge(
        "process_start_time_seconds", "When the youngest process began.", PROCESS_STARTED_AT, across=Aggregation.MOST
    )
    build = (
        __version__,
        list_known_revisions()[-1],
        platform.python_version(),
        container.settings().storage.storage.value,
    )
    yield gauge(
        "shopassist_build_info",
        "What serves: version, revision of the schema that it needs, Python, storage.",
        {build: 1.0},
        *("version", "schema_revision", "python", "storage"),
        across=Aggregation.MOST,
    )


def _read_resident_bytes(most_kilobytes: int) -> float:
    """Resident memory, or, where that is not told, the most there was."""
    if sys.platform == "linux":
        return float(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return float(most_kilobytes)
