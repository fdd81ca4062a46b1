"""What a worker hands its runner, and what the runner reports back.

The seam between the worker's loop (queue, disk, Redis) and the device thread: frozen values, no torch. A runner is
whatever has `Engine`'s methods; `workers.runner.Runner` is the real one, `tests.twins` ships a small twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import JobFailure
from workers.contracts.job import JobSpec, Stage

if TYPE_CHECKING:
    from models.plan import Unit

STAGES = {"coarse": Stage.COARSE, "refine": Stage.REFINED}
"""The stages of the models, as they are called in the contracts."""


class RunAlone(StrEnum):
    """Whether other jobs may share a batch with this one."""

    NO = "no"
    UNTIL_UNIT = "until_unit"
    """Its last worker died with it in flight: alone until one of its units is done."""


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed job as the runner sees it."""

    job_id: str
    attempt: int
    spec: JobSpec
    submitted_at: float
    finished: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Persisted coarse results by unit key."""
    done: frozenset[str] = frozenset()
    """Keys of every persisted unit."""
    alone: RunAlone = RunAlone.NO
    tenant: str = "default"
    deadline_in: float | None = None
    """Seconds from its claim until it fails as late; None: never."""
    reference: NDArray[np.uint8] | None = None
    """The user's own first frames, (n, side, side, 3)."""


@dataclass(frozen=True, slots=True)
class UnitFinished:
    """A unit is done; its result is on the host, and the runner's no longer."""

    job_id: str
    attempt: int
    unit: Unit
    result: NDArray[np.float32]
    drawn: NDArray[np.float32]
    """(n, C, H, W) in [-1, 1]: the unit's new frames, in order."""
    bits: int
    started_at: float
    seconds: float

    @property
    def frames(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """(n, H, W, 3), or (n, H, W) of 16 bits. Made when it is asked for: not on the device's thread."""
        from models.media import pixels

        return pixels(self.drawn, bits=self.bits)


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """Every unit of the task is done; follows its last `UnitFinished`."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The task cannot go on; it is dropped already."""

    job_id: str
    attempt: int
    error: JobFailure


@dataclass(frozen=True, slots=True)
class TickRan:
    """One engine batch."""

    net: str
    rows: int
    bucket: int
    seconds: float
    jobs: int
    closed: str = "no_more"
    """Why no more rows went in: a word of `workers.scheduler.Closed`."""


class Remedy(StrEnum):
    """What is done about a batch that failed."""

    SMALLER = "smaller"
    """It did not fit: no bucket of this net is as large any more."""
    SPLIT = "split"
    """Its jobs go on one by one, until each has got past it."""
    AGAIN = "again"
    """The one job starts its unit again."""
    NONE = "none"
    """The one job has failed."""


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """A batch that came to nothing; every job in it is tried again, or its `TaskFailed` follows."""

    net: str
    rows: int
    bucket: int
    jobs: int
    remedy: Remedy
    error: str


class BuildOutcome(StrEnum):
    """How a build beside the work ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """The worker ends."""


@dataclass(frozen=True, slots=True)
class EngineBuildStarted:
    """A bundle's nets are being compiled in a child process."""

    model: str
    engine: str
    precision: str


@dataclass(frozen=True, slots=True)
class EngineBuildEnded:
    """The child process is gone."""

    model: str
    engine: str
    precision: str
    outcome: BuildOutcome
    seconds: float
    reason: str = ""
    """Of a failure."""


@dataclass(frozen=True, slots=True)
class EngineSwapped:
    """Jobs that begin from now on are served by another engine; those in hand go on with theirs."""

    model: str
    net: str
    engine: str
    precision: str
    was_engine: str
    was_precision: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineKept:
    """What was built does not serve: another engine does, and why."""

    model: str
    net: str
    engine: str
    precision: str
    reason: str


EngineFact = EngineBuildStarted | EngineBuildEnded | EngineSwapped | EngineKept
Counted = TickRan | BatchFailed | EngineFact
"""Facts of no single job."""
Fact = UnitFinished | TaskFinished | TaskFailed | Counted


class Opening(Protocol):
    """Engines that were built while others serve."""

    def open(self) -> None:
        """Open, warm up and judge them; may take minutes. Those that are not right are left out."""
        ...

    def swap(self) -> None:
        """Tasks that are admitted from now on are served by them; at once."""
        ...


class Engine(Protocol):
    """What the worker asks of a runner; every method is called on the one device thread."""

    @property
    def has_work(self) -> bool:
        """Whether `tick` would do something."""
        ...

    def catalogue(self) -> Sequence[CatalogueEntry]:
        """What it serves."""
        ...

    def admit(self, task: Task) -> None:
        """Take a task; units in `task.done` are not run again."""
        ...

    def drop(self, job_id: str) -> None:
        """Forget a task; no fact about it follows. Unknown ids are ignored."""
        ...

    def tick(self) -> Sequence[Fact]:
        """Run one engine batch; [] when nothing is runnable."""
        ...

    def improved(self) -> Opening | None:
        """See to engines that are built beside the work, cheaply; those that have been built since, to be opened."""
        ...

    def settle(self) -> None:
        """Stop what is built; nothing comes of `improved` any more. Repeat-safe."""
        ...

    def close(self) -> None:
        """Free the device."""
        ...
