"""A job: what was asked (`JobSpec`), where it stands (`Job`), and where its pictures are (`StoredObject`).

All are frozen; a change of state makes a new value (`job.evolve(...)`). Times are seconds since the epoch.
A job is kept in Redis as a flat hash of strings: `Job.to_hash` and `Job.from_hash` are the only two places that know
how. Counters in the hash (`seq`, `attempt`, `coarse_done`, `refined_done`) are changed by Lua scripts alone.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

MAX_SEED = 2**53 - 1
"""Largest seed: every JSON reader holds it exactly."""
MAX_ATTEMPTS = 3
"""Claims without a newly persisted unit after which a job fails."""


class JobStatus(StrEnum):
    """Exactly these words go over the wire."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether no event follows."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class Stage(StrEnum):
    """Which of the two pictures of a frame."""

    COARSE = "coarse"
    REFINED = "refined"


class Mode(StrEnum):
    """How a long sequence is put together."""

    SOUND = "sound"
    """Exactly the frames asked for."""
    OFFICIAL = "official"
    """As the published code does it, oddities included."""

    def frames_made(self, asked: int) -> int:
        """Length of the sequence: the published code makes 16 frames, and 8 more in each round."""
        return asked if self is Mode.SOUND else 16 + 8 * max(0, (asked - 8) // 12 + 1)


class Priority(StrEnum):
    """Each priority is one RQ queue; a worker empties them in this order."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def queue(self) -> str:
        """Name of the RQ queue."""
        return f"gridit-{self.value}"


class Value(BaseModel):
    """Base of all contract values: frozen; unknown fields from a newer peer are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def evolve(self, **changes: object) -> Self:
        """A copy with these fields replaced."""
        return self.model_copy(update=changes)


class StoredObject(Value):
    """One immutable file in the store."""

    path: str
    """Relative to the store's root."""
    sha256: str
    bytes: int
    media_type: str
    width: int | None = None
    height: int | None = None


class JobSpec(Value):
    """What was asked, with every default filled in; never changes after submission."""

    model: str
    bundle_hash: str
    """Hash of the bundle the defaults and limits were taken from."""
    class_label: str | None = None
    num_frames: Annotated[int, Field(ge=1)]
    """As asked; `Job.frames_total` are made."""
    fps: Annotated[int, Field(ge=1)]
    size: str
    """Of the refined (or, for stages=coarse, the coarse) frames: "128x128"."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    num_inference_steps: Annotated[int, Field(ge=1)]
    """Steps of each coarse grid."""
    refine_steps: Annotated[int, Field(ge=1)]
    sampler: str
    spacing: str = "linear"
    guidance_scale: float
    mode: Mode = Mode.SOUND
    slow_motion: Annotated[int, Field(ge=1)] = 1
    """m: m - 1 frames are drawn between each two of the motion at full speed."""
    cache: Annotated[int, Field(ge=1)] = 1
    """n: the deep features of a net are computed at every n-th step and reused in between."""
    input_reference: StoredObject | None = None
    """The user's own first frames: uint8 .npy, (n, side, side, 3) at the coarse size."""
    reference_frames: int = 0
    stages: Stage = Stage.REFINED
    """The last stage to run."""
    priority: Priority = Priority.NORMAL
    deadline_seconds: float | None = None
    """From submission; None: no deadline."""
    metadata: dict[str, str] = {}


class UnitRecord(Value):
    """A persisted unit: its pictures, and for a coarse grid the raw result that later units read."""

    stage: Stage
    start: int
    """Index of the first of `frames` in the sequence."""
    frames: tuple[StoredObject, ...]
    result: StoredObject | None = None
    """float32 .npy."""


class JobError(Value):
    """Why a job failed."""

    code: str
    message: str


class Numerics(Value):
    """What decides a job's pixels besides its spec; noted at its first claim."""

    bundle_hash: str
    engine: str
    precision: str
    version: str


class Job(Value):
    """The record of a job. Field for field what the Redis hash holds."""

    id: str
    spec: JobSpec
    tenant: str = "default"
    status: JobStatus = JobStatus.QUEUED
    created_at: float
    started_at: float | None = None
    """First claim."""
    completed_at: float | None = None
    """Terminal event, whichever."""
    expires_at: float | None = None
    """When artifacts go."""
    attempt: int = 0
    """Times claimed; fences every write of a worker."""
    stalled_attempts: int = 0
    """Claims since the last persisted unit."""
    suspect: bool = False
    """In flight when its worker died: runs alone until one of its units is done."""
    seq: int = 0
    """Last event id."""
    coarse_done: int = 0
    """Coarse frames published: 0..coarse_done-1 exist."""
    refined_done: int = 0
    coarse_ready: bool = False
    cancel_requested_at: float | None = None
    error: JobError | None = None
    numerics: Numerics | None = None
    artifacts: dict[str, StoredObject] = {}
    """Finished files by variant: "video", ..."""
    stage_durations: dict[str, float] = {}
    """Seconds: queue, coarse, refine, encode."""
    warnings: tuple[str, ...] = ()
    traceparent: str | None = None

    def to_hash(self) -> dict[str, str]:
        """Flat strings for HSET; absent fields are left out, structures are JSON."""
        plain = self.model_dump(mode="json", exclude_none=True)
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in plain.items()}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Self:
        """Inverse of `to_hash`; fields this version does not know are ignored."""
        strings = {"id", "tenant", "status", "traceparent"}
        plain: dict[str, Any] = {k: v if k in strings else json.loads(v) for k, v in fields.items() if v != ""}
        return cls.model_validate(plain)

    @property
    def frames_total(self) -> int:
        """Frames the finished sequence has."""
        return self.spec.mode.frames_made(self.spec.num_frames)


def new_job_id(*, now: float | None = None) -> str:
    """A fresh id that sorts by time: "video_" + 12 hex digits of milliseconds + 20 random ones."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    return f"video_{milliseconds:012x}{secrets.token_hex(10)}"
