"""The jobs that a worker has in hand, and how far each is: shared by its threads.

A holding begins with a claim and ends with the job's end, or when the job leaves this worker. What is persisted is in
the store and in Redis; this is only what the publisher needs to know of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from workers.contracts.job import Job, Stage, StoredObject, UnitRecord
from workers.device import Why
from workers.queue.ledger import Claim, Frame, Published


@dataclass(slots=True)
class Holding:
    """One job in hand."""

    job: Job
    stored: dict[Stage, dict[int, StoredObject]] = field(default_factory=lambda: {stage: {} for stage in Stage})
    """Every persisted frame."""
    done: dict[Stage, int] = field(default_factory=dict)
    """Frames published."""
    last_at: dict[Stage, float] = field(default_factory=dict)
    """When this worker last published one."""
    leaving: Why | None = None
    """Why it was taken off the device; what comes of it follows in the publisher's order."""
    since: float = field(default_factory=time.monotonic)
    """When it was claimed."""
    encoding: bool = False
    """Every frame is published; nothing stops it any more."""

    @classmethod
    def of(cls, claim: Claim) -> Holding:
        """A job just claimed, with what earlier attempts persisted."""
        job = claim.job
        holding = cls(job, done={Stage.COARSE: job.coarse_done, Stage.REFINED: job.refined_done})
        for record in claim.units.values():
            holding.note(record)
        return holding

    def note(self, record: UnitRecord) -> None:
        """A unit is persisted; frames behind the end of the sequence are nobody's."""
        for index, stored in enumerate(record.frames, start=record.start):
            if index < self.job.frames_total:
                self.stored[record.stage][index] = stored

    def publishable(self) -> list[Frame]:
        """Persisted frames whose turn it is: in order, and no refined one before its coarse one."""
        coarse = self._next(Stage.COARSE, limit=self.job.frames_total)
        return coarse + self._next(Stage.REFINED, limit=self.done[Stage.COARSE] + len(coarse))

    def published(self, result: Published) -> Iterator[tuple[Frame, float | None]]:
        """Note a publication; each frame that is new by it, and the seconds since the one before."""
        after = {Stage.COARSE: result.coarse_done, Stage.REFINED: result.refined_done}
        for stage, end in after.items():
            for index in range(self.done[stage], end):
                since = result.at - self.last_at[stage] if stage in self.last_at else None
                self.last_at[stage] = result.at
                yield Frame(stage, index, self.stored[stage][index]), since
            self.done[stage] = max(end, self.done[stage])

    @property
    def last_stage(self) -> list[StoredObject]:
        """Frames of the last stage, in order."""
        return [stored for _, stored in sorted(self.stored[self.job.spec.stages].items())]

    def _next(self, stage: Stage, *, limit: int) -> list[Frame]:
        frames: list[Frame] = []
        for index in range(self.done[stage], limit):
            if index not in self.stored[stage]:
                break
            frames.append(Frame(stage, index, self.stored[stage][index]))
        return frames


class Holdings:
    """Holdings by job, in the order of their claims."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_job: dict[str, Holding] = {}

    def __len__(self) -> int:
        return len(self._by_job)

    def add(self, holding: Holding) -> None:
        """Take a job in hand."""
        with self._lock:
            self._by_job[holding.job.id] = holding

    def remove(self, job_id: str) -> None:
        """Let a job go."""
        with self._lock:
            self._by_job.pop(job_id, None)

    def get(self, job_id: str, attempt: int) -> Holding | None:
        """The holding, if it is of this attempt."""
        with self._lock:
            holding = self._by_job.get(job_id)
        return holding if holding is not None and holding.job.attempt == attempt else None

    def all(self) -> list[Holding]:
        """A copy of the list."""
        with self._lock:
            return list(self._by_job.values())
