"""Worker processes that note what they really compute: an engine around any other, and what tests read of its notes.

Each finished unit and each tick is a line in a file, appended at once, so a kill -9 loses none. A tick may be slowed
down by a sleep, which makes short jobs long without work for the processor. As a program it is `gridit worker`, but
for the notes; the engine within is the real runner, or the twin.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tests.twins import TwinRunner
from workers.commands import load
from workers.contracts import logs, settings
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.job import Job
from workers.contracts.settings import Settings
from workers.tasks import Engine, Fact, Opening, Task, TaskFailed, TaskFinished, UnitFinished


class Within(StrEnum):
    """The engine that is noted."""

    RUNNER = "runner"
    """The real one, with the bundles of the settings."""
    TWIN = "twin"


@dataclass(frozen=True)
class Ran:
    """A tick: when it began and ended (seconds since the epoch), and the jobs that the engine had in hand."""

    began: float
    ended: float
    jobs: frozenset[str]


@dataclass(frozen=True)
class Unit:
    """A unit that was computed, and by which attempt."""

    job_id: str
    attempt: int
    key: str


class Notes:
    """What the workers of one test did."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory

    def units(self, job_id: str) -> list[Unit]:
        """Units of a job that were computed, by whichever attempt, in order."""
        lines = (line.split() for line in self._lines("units"))
        return [Unit(job, int(attempt), key) for job, attempt, key in lines if job == job_id]

    def redone(self, job_id: str) -> int:
        """How many of them were computed once more."""
        counts = Counter(unit.key for unit in self.units(job_id))
        return sum(counts.values()) - len(counts)

    def ticks(self) -> list[Ran]:
        """Every tick, in the order of their ends."""
        lines = (line.split(" ") for line in self._lines("ticks"))
        return [
            Ran(float(began), float(ended), frozenset(filter(None, jobs.split(",")))) for began, ended, jobs in lines
        ]

    def loaded(self) -> list[float]:
        """When each worker had its engine (seconds since the epoch)."""
        return [float(line) for line in self._lines("loaded")]

    def note(self, name: str, line: str) -> None:
        """Append a line; one write, so lines of several processes do not mix."""
        with (self.directory / name).open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def _lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


class Kept:
    """Which units were kept when a worker died; none of them may be computed again."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._deaths: dict[str, list[tuple[int, set[str]]]] = {}

    def note(self, job: Job, units: set[str]) -> None:
        """Its worker has just died, and these units are kept."""
        self._deaths.setdefault(job.id, []).append((job.attempt, units))

    def done_again(self, job_id: str) -> list[Unit]:
        """Units that a later attempt has computed though they were kept."""
        made = self._notes.units(job_id)
        deaths = self._deaths.get(job_id, ())
        return [unit for attempt, kept in deaths for unit in made if unit.attempt > attempt and unit.key in kept]


class Noting:
    """An engine around another one."""

    def __init__(self, inner: Engine, *, notes: Notes, tick_seconds: float) -> None:
        self._inner = inner
        self._notes = notes
        self._tick_seconds = tick_seconds
        self._jobs: set[str] = set()

    @property
    def has_work(self) -> bool:
        return self._inner.has_work

    def catalogue(self) -> Sequence[CatalogueEntry]:
        return self._inner.catalogue()

    def admit(self, task: Task) -> None:
        self._jobs.add(task.job_id)
        self._inner.admit(task)

    def drop(self, job_id: str) -> None:
        self._jobs.discard(job_id)
        self._inner.drop(job_id)

    def tick(self) -> Sequence[Fact]:
        began, jobs = time.time(), ",".join(sorted(self._jobs))
        time.sleep(self._tick_seconds)
        facts = self._inner.tick()
        for fact in facts:
            match fact:
                case UnitFinished():
                    self._notes.note("units", f"{fact.job_id} {fact.attempt} {fact.unit.key}")
                case TaskFinished() | TaskFailed():
                    self._jobs.discard(fact.job_id)
        self._notes.note("ticks", f"{began:.6f} {time.time():.6f} {jobs}")
        return facts

    def improved(self) -> Opening | None:
        return self._inner.improved()

    def settle(self) -> None:
        self._inner.settle()

    def close(self) -> None:
        self._inner.close()


def engine(chosen: Settings, within: Within, *, notes: Path, tick_seconds: float) -> Engine:
    """The engine of a noting worker."""
    inner: Engine = load(chosen) if within is Within.RUNNER else TwinRunner()
    noting = Noting(inner, notes=Notes(notes), tick_seconds=tick_seconds)
    Notes(notes).note("loaded", f"{time.time():.6f}")
    return noting


def work(name: str, *, within: Within, notes: Path, tick_seconds: float = 0.02, **fields: object) -> None:
    """Be a worker process until stopped; `fields` are of Settings."""
    from workers.worker import Worker

    chosen = settings.load(**fields)
    logs.configure(level=chosen.log_level, format=chosen.log_format)
    worker = Worker(chosen, partial(engine, chosen, within, notes=notes, tick_seconds=tick_seconds), name=name)
    worker.handle_signals()
    status = worker.run()
    if worker.stuck:
        os._exit(status)
    sys.exit(status)


def main(
    name: Annotated[str, typer.Option()],
    notes: Annotated[Path, typer.Option(help="Directory of the notes.")],
    within: Annotated[Within, typer.Option()] = Within.RUNNER,
    tick: Annotated[float, typer.Option(help="Seconds by which a tick is slowed down.")] = 0.0,
) -> None:
    """A worker process that notes; the rest is set by GRIDIT_* variables."""
    work(name, within=within, notes=notes, tick_seconds=tick)


if __name__ == "__main__":
    typer.run(main)
