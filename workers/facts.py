"""What happened in a worker, as values. An event in a job's stream, a log line and a metric are projections of these.

`workers.metrics.project` makes metrics of them and `report` both; nothing else counts or logs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.job import Job, Stage
from workers.tasks import Counted


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """Bundles and engines are loaded."""

    catalogue: tuple[CatalogueEntry, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Announced:
    """What is served, or how, has changed; the catalogue in Redis says so now."""

    catalogue: tuple[CatalogueEntry, ...]


@dataclass(frozen=True, slots=True)
class Beaten:
    """A heartbeat reached Redis."""

    at: float
    progress_at: float | None
    """End of the last tick."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job was taken."""

    job: Job


@dataclass(frozen=True, slots=True)
class FramePublished:
    """A frame can be seen by everybody."""

    job_id: str
    stage: Stage
    index: int
    since_submission: float
    since_previous: float | None
    """Seconds after the frame before it; None if another worker published that one, or for the first."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job's terminal event is written."""

    job: Job


@dataclass(frozen=True, slots=True)
class Left:
    """A job left this worker without an end: given back, or no longer its own."""

    job_id: str
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Redelivered:
    """A job whose worker was lost; `became` queued, failed or cancelled."""

    job_id: str
    became: str


WorkerFact = WorkerReady | Beaten | Claimed | FramePublished | Ended | Left | Redelivered | Announced | Counted
