"""A small twin of the runner: the same seam and laws, tiny pictures, no weights, a sleep per batch and per row.

Frames follow from (seed, unit) and, for refined ones, from the grid they refine, so a wrong resume shows in the bytes.
Each unit it finishes is noted in a file, so a test can tell what was computed twice.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from models.plan import Unit, UnitKind
from workers.contracts.catalogue import CatalogueEntry, EngineInfo
from workers.contracts.errors import BundleUnavailable, JobFailure
from workers.contracts.job import JobSpec, Stage
from workers.tasks import Fact, Opening, RunAlone, Task, TaskFailed, TaskFinished, TickRan, UnitFinished

GRID = 4
"""Frames of a unit, coarse or refined."""
COARSE, REFINED = 8, 16
"""Sides of the pictures."""
MODEL = "twin"
DIED = 9
"""Exit status of a worker that a job has taken down."""
FOR_EVER = 10_000
"""Seconds; far longer than any test waits."""


def bundle_hash(model: str) -> str:
    """Of a twin of that name."""
    return f"{model}-hash"


def spec(*, frames: int = 8, seed: int = 1, steps: int = 2, **changes: object) -> JobSpec:
    """A job for the twin; a unit takes `steps` batches."""
    plain = JobSpec(
        model=MODEL,
        bundle_hash=bundle_hash(MODEL),
        num_frames=frames,
        fps=8,
        size=f"{REFINED}x{REFINED}",
        seed=seed,
        num_inference_steps=steps,
        refine_steps=steps,
        sampler="euler",
        guidance_scale=1.0,
    )
    return plain.evolve(**changes)


def plan(job: JobSpec) -> list[Unit]:
    """Grid by grid, each followed by its refinement."""
    units: list[Unit] = []
    for index, start in enumerate(range(0, job.num_frames, GRID)):
        frames = range(start, min(start + GRID, job.num_frames))
        cells = range(len(frames))
        before = (f"coarse/{index - 1}",) if index else ()
        units.append(Unit(f"coarse/{index}", UnitKind.COARSE, index, frames, cells, before))
        if job.stages is Stage.REFINED:
            key = f"refine/{frames.start}-{frames.stop}"
            units.append(Unit(key, UnitKind.REFINE, index, frames, cells, (f"coarse/{index}",)))
    return units


def compute(job: JobSpec, unit: Unit, required: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(n, side, side, 3) in 0..1."""
    side = COARSE if unit.kind is UnitKind.COARSE else REFINED
    noise = np.random.Generator(np.random.Philox(key=[job.seed, unit.index])).random((len(unit.frames), side, side, 3))
    base = 0.0 if required is None else float(required.mean())
    return ((noise + base) / 2).astype(np.float32)


@dataclass(slots=True)
class _Run:
    task: Task
    todo: list[Unit]
    results: dict[str, NDArray[np.float32]]
    alone: RunAlone
    steps: int = 0
    began: float = field(default_factory=time.time)


class TwinRunner:
    """Runs one step of every job a tick, or only of the one that runs alone."""

    def __init__(
        self, *, tick_seconds: float = 0.0, row_seconds: float = 0.0, noted: Path | None = None, model: str = MODEL
    ) -> None:
        """A batch takes `tick_seconds` and `row_seconds` for each of its rows, one a job."""
        self._tick_seconds = tick_seconds
        self._row_seconds = row_seconds
        self._noted = noted
        self._model = model
        self._runs: dict[str, _Run] = {}
        self._undelivered: list[Fact] = []

    @property
    def has_work(self) -> bool:
        return bool(self._runs or self._undelivered)

    def catalogue(self) -> Sequence[CatalogueEntry]:
        info = EngineInfo(engine="twin", precision="fp32")
        return (
            CatalogueEntry(
                name=self._model,
                hash=bundle_hash(self._model),
                grid=2,
                coarse_size=COARSE,
                refined_size=REFINED,
                max_frames=1024,
                max_steps=1000,
                max_guidance_scale=1.0,
                default_num_frames=8,
                default_fps=8,
                default_sampler="euler",
                default_steps=2,
                default_refine_steps=2,
                default_guidance_scale=1.0,
                is_default=self._model == MODEL,
                engines={"coarse": info, "refine": info},
                seen_at=time.time(),
            ),
        )

    def admit(self, task: Task) -> None:
        if task.spec.model != self._model:
            error = BundleUnavailable(f"model {task.spec.model!r} is not served by this worker, only {self._model!r}")
            self._undelivered.append(TaskFailed(task.job_id, task.attempt, error))
            return
        todo = [unit for unit in plan(task.spec) if unit.key not in task.done]
        self._runs[task.job_id] = _Run(task, todo, dict(task.finished), task.alone)

    def drop(self, job_id: str) -> None:
        self._runs.pop(job_id, None)

    def tick(self) -> list[Fact]:
        alone = [run for run in self._runs.values() if run.alone is RunAlone.UNTIL_UNIT]
        batch = alone[:1] or list(self._runs.values())
        facts, self._undelivered = self._undelivered, []
        if batch:
            seconds = self._tick_seconds + len(batch) * self._row_seconds
            time.sleep(seconds)
            facts.append(TickRan("coarse", len(batch), len(batch), seconds, len(batch)))
        for run in batch:
            facts.extend(self._step(run))
        return facts

    def improved(self) -> Opening | None:
        return None

    def settle(self) -> None:
        """Nothing is built."""

    def close(self) -> None:
        self._runs.clear()

    def _step(self, run: _Run) -> list[Fact]:
        task = run.task
        if task.spec.metadata.get("twin") == "fail" and run.results:
            del self._runs[task.job_id]
            return [TaskFailed(task.job_id, task.attempt, JobFailure("asked to fail"))]
        misbehave(task)
        if not run.todo:
            return self._end(run)
        run.steps += 1
        if run.steps < task.spec.num_inference_steps:
            return []
        facts: list[Fact] = [self._finish(run, run.todo.pop(0))]
        return facts if run.todo else facts + self._end(run)

    def _finish(self, run: _Run, unit: Unit) -> Fact:
        required = run.results[unit.requires[0]] if unit.requires else None
        result = compute(run.task.spec, unit, required)
        run.results[unit.key], run.steps, run.alone = result, 0, RunAlone.NO
        if self._noted is not None:
            with self._noted.open("a") as file:
                file.write(f"{run.task.job_id} {run.task.attempt} {unit.key}\n")
        frames = (result * 255).astype(np.uint8)
        drawn = frames.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        task = run.task
        return UnitFinished(task.job_id, task.attempt, unit, result, drawn, 8, run.began, time.time() - run.began)

    def _end(self, run: _Run) -> list[Fact]:
        del self._runs[run.task.job_id]
        return [TaskFinished(run.task.job_id, run.task.attempt)]


def misbehave(task: Task) -> None:
    """What `metadata.twin` asks for: "break", "die", "hang", "seize"; "hang:2" in the first two attempts only."""
    wish, _, attempts = task.spec.metadata.get("twin", "").partition(":")
    if attempts and task.attempt > int(attempts):
        return
    match wish:
        case "break":
            raise RuntimeError("the device is lost")
        case "die":
            os._exit(DIED)
        case "hang":
            time.sleep(FOR_EVER)
        case "seize":  # as native code does that keeps the interpreter to itself
            ctypes.PyDLL(None).sleep(FOR_EVER)


def work(
    name: str,
    *,
    redis_url: str,
    data_dir: Path,
    tick_seconds: float = 0.02,
    row_seconds: float = 0.0,
    noted: Path | None = None,
    model: str = MODEL,
    **more: object,
) -> None:
    """A worker process around the twin; `more` are fields of Settings."""
    from workers.contracts import logs, settings
    from workers.worker import Worker

    chosen = settings.load(redis_url=redis_url, data_dir=data_dir, **more)
    logs.configure(level=chosen.log_level, format=chosen.log_format)
    engine = partial(TwinRunner, tick_seconds=tick_seconds, row_seconds=row_seconds, noted=noted, model=model)
    worker = Worker(chosen, engine, name=name)
    worker.handle_signals()
    sys.exit(worker.run())


def main(
    name: Annotated[str, typer.Option()],
    tick: Annotated[float, typer.Option(help="Seconds of a batch.")] = 0.02,
    noted: Annotated[Path | None, typer.Option(help="Where finished units are noted.")] = None,
    model: Annotated[str, typer.Option(help="Name of its bundle.")] = MODEL,
) -> None:
    """A worker process around the twin; the rest is set by GRIDIT_* variables."""
    from workers.contracts import settings

    chosen = settings.load()
    work(name, redis_url=chosen.redis_url, data_dir=chosen.data_dir, tick_seconds=tick, noted=noted, model=model)


if __name__ == "__main__":
    typer.run(main)
