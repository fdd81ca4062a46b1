"""A worker's metrics: one declaration and one case in `project` each; no ids as labels.

Gauges say for several processes in one scrape (Prometheus multiprocess mode) what they mean: the least heartbeat of
those alive, so that one silent worker shows.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.job import Job
from workers.contracts.settings import EngineChoice
from workers.facts import Announced, Beaten, Claimed, Ended, FramePublished, Left, Redelivered, WorkerFact, WorkerReady
from workers.tasks import (
    BatchFailed,
    BuildOutcome,
    EngineBuildEnded,
    EngineBuildStarted,
    EngineKept,
    EngineSwapped,
    Remedy,
    TickRan,
)

log = logging.getLogger("workers")

REGISTRY = CollectorRegistry()
DURATIONS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 240, 480, 900, 1200)
"""Seconds a user waits."""
INTERVALS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 1200)
STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BUILDS = (1, 2, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 3600)
"""Seconds of a compilation."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)

JOBS = Counter("gridit_jobs", "Jobs that ended.", ["model", "status"], registry=REGISTRY)
JOB_DURATION = Histogram("gridit_job_duration_seconds", "Submission to end.", registry=REGISTRY, buckets=DURATIONS)
JOB_ATTEMPTS = Histogram("gridit_job_attempts", "Claims of a job.", registry=REGISTRY, buckets=(1, 2, 3, 5, 10))
QUEUE_WAIT = Histogram("gridit_queue_wait_seconds", "Submission to first claim.", registry=REGISTRY, buckets=DURATIONS)
STAGE_DURATION = Histogram(
    "gridit_stage_duration_seconds", "Time a job spent in a stage.", ["stage"], registry=REGISTRY, buckets=DURATIONS
)
FIRST_FRAME = Histogram(
    "gridit_time_to_first_frame_seconds",
    "Submission to the first published frame of a stage.",
    ["stage"],
    registry=REGISTRY,
    buckets=DURATIONS,
)
FRAME_INTERVAL = Histogram(
    "gridit_frame_interval_seconds",
    "Between a job's published frames of a stage.",
    ["stage"],
    registry=REGISTRY,
    buckets=INTERVALS,
)
FRAMES = Counter("gridit_frames", "Published frames.", ["stage"], registry=REGISTRY)
STEP = Histogram("gridit_denoise_step_seconds", "One batch on the engine.", ["stage"], registry=REGISTRY, buckets=STEPS)
BATCH_SIZE = Histogram("gridit_batch_size", "Rows in a batch.", ["stage"], registry=REGISTRY, buckets=ROWS)
BATCH_STOPS = Counter(
    "gridit_batch_stop", "Batches, by why no more rows went into them.", ["reason"], registry=REGISTRY
)
BATCH_FAILURES = Counter("gridit_batch_failures", "Batches that failed, by remedy.", ["remedy"], registry=REGISTRY)
REDELIVERED = Counter("gridit_jobs_redelivered", "Jobs taken from a lost worker.", registry=REGISTRY)
UP = Gauge("gridit_worker_up", "Workers that are ready.", registry=REGISTRY, multiprocess_mode="livesum")
HEARTBEAT = Gauge(
    "gridit_worker_heartbeat_timestamp_seconds",
    "Last heartbeat that reached Redis.",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
PROGRESS = Gauge(
    "gridit_worker_progress_timestamp_seconds",
    "End of the last batch.",
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
ENGINE_INFO = Gauge(
    "gridit_engine_info",
    "Engine that serves a net.",
    ["model", "stage", "engine", "precision"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
ENGINE_FALLBACK = Gauge(
    "gridit_engine_fallback",
    "Whether a net is served by another engine than it should be, for want of that one.",
    ["model", "stage"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
ENGINE_BUILD = Histogram(
    "gridit_engine_build_seconds",
    "Engines compiled beside the work, by how that ended.",
    ["engine", "outcome"],
    registry=REGISTRY,
    buckets=BUILDS,
)

for _remedy in Remedy:
    BATCH_FAILURES.labels(_remedy.value)  # a rate of zero, not an absence, until one fails
for _engine in set(EngineChoice) - {EngineChoice.AUTO, EngineChoice.TORCH}:
    for _outcome in BuildOutcome:
        ENGINE_BUILD.labels(_engine.value, _outcome.value)


def report(fact: WorkerFact) -> None:
    """Count and log a fact."""
    project(fact)
    action = re.sub(r"(?<!^)(?=[A-Z])", "_", type(fact).__name__).lower()
    match fact:
        case TickRan() | Beaten() | FramePublished():
            level = logging.DEBUG
        case BatchFailed() | EngineBuildEnded(outcome=BuildOutcome.FAILED):
            level = logging.WARNING
        case _:
            level = logging.INFO
    log.log(level, action.replace("_", " "), extra={"action": action, **_fields(fact)})


def project(fact: WorkerFact) -> None:
    """The metrics of a fact."""
    match fact:
        case WorkerReady():
            UP.set(1)
            _note_engines(fact.catalogue)
        case Announced():
            _note_engines(fact.catalogue)
        case EngineSwapped():
            ENGINE_INFO.labels(fact.model, fact.net, fact.was_engine, fact.was_precision).set(0)
            ENGINE_INFO.labels(fact.model, fact.net, fact.engine, fact.precision).set(1)
        case EngineBuildEnded():
            ENGINE_BUILD.labels(fact.engine, fact.outcome.value).observe(fact.seconds)
        case Beaten():
            HEARTBEAT.set(fact.at)
            PROGRESS.set(fact.progress_at or fact.at)
        case Claimed(job) if job.attempt == 1 and job.started_at is not None:
            QUEUE_WAIT.observe(job.started_at - job.created_at)
        case FramePublished():
            _note_frame(fact)
        case Ended(job):
            _note_end(job)
        case Redelivered():
            REDELIVERED.inc()
        case TickRan():
            STEP.labels(fact.net).observe(fact.seconds)
            BATCH_SIZE.labels(fact.net).observe(fact.rows)
            BATCH_STOPS.labels(fact.closed).inc()
        case BatchFailed():
            BATCH_FAILURES.labels(fact.remedy.value).inc()
        case Claimed() | Left() | EngineBuildStarted() | EngineKept():
            pass


def export(port: int | None) -> None:
    """Serve this process's metrics on `port`; in multiprocess mode whoever collects the directory does."""
    if port is not None and not multiprocess():
        start_http_server(port, registry=REGISTRY)


def multiprocess() -> bool:
    """Whether metrics go to a directory that is shared between processes."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def collected() -> CollectorRegistry:
    """What to render: of this process, or of all that share the directory."""
    if not multiprocess():
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def retire() -> None:
    """This process ends: its gauges are to be shown no more."""
    UP.set(0)
    if multiprocess():
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _note_frame(fact: FramePublished) -> None:
    stage = fact.stage.value
    FRAMES.labels(stage).inc()
    if fact.index == 0:
        FIRST_FRAME.labels(stage).observe(fact.since_submission)
    if fact.since_previous is not None:
        FRAME_INTERVAL.labels(stage).observe(fact.since_previous)


def _note_end(job: Job) -> None:
    JOBS.labels(job.spec.model, job.status.value).inc()
    JOB_ATTEMPTS.observe(job.attempt)
    if job.completed_at is not None:
        JOB_DURATION.observe(job.completed_at - job.created_at)
    for stage, seconds in job.stage_durations.items():
        STAGE_DURATION.labels(stage).observe(seconds)


def _note_engines(catalogue: Sequence[CatalogueEntry]) -> None:
    for entry in catalogue:
        for stage, info in entry.engines.items():
            ENGINE_FALLBACK.labels(entry.name, stage).set(info.is_fallback)
            ENGINE_INFO.labels(entry.name, stage, info.engine, info.precision).set(1)


def _fields(fact: WorkerFact) -> dict[str, object]:
    """A fact as flat log fields; a job is its id, attempt and state."""
    match fact:
        case Claimed(job) | Ended(job):
            fields: dict[str, object] = {"job_id": job.id, "attempt": job.attempt, "status": job.status.value}
            return fields | ({"code": job.error.code, "error": job.error.message} if job.error else {})
        case Announced(catalogue):
            return {"engines": [_summary(entry) for entry in catalogue]}
        case WorkerReady():
            engines = [_summary(entry) for entry in fact.catalogue]
            models = [entry.name for entry in fact.catalogue]
            return {"models": models, "seconds": round(fact.seconds, 3), "engines": engines}
        case _:
            return dataclasses.asdict(fact)


def _summary(entry: CatalogueEntry) -> dict[str, str]:
    """By net: engine, precision and why; what is built meanwhile; what has failed."""
    told = {"model": entry.name}
    for net, info in entry.engines.items():
        parts = [f"{info.engine} {info.precision}: {info.reason}"]
        parts += [f"building {info.building}"] if info.building else []
        parts += [f"failed {info.failed}"] if info.failed else []
        told[net] = "; ".join(parts)
    return told
