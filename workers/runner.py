"""The runner: drives the units of many jobs on one device, a batch a tick, and tells what came of it as facts.

It owns the generators and the nets; it knows no Redis, file or thread. A job that is admitted again after a crash
brings its kept results and only the rest of its plan is run. A failing batch is tried again part by part, so that one
job's error ends that job alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models import alone, devices, units
from models import bundle as bundles
from models.bundle import Bundle
from models.engines import select
from models.evaluator import Answering, Evaluator
from models.media import to_pixels
from models.spec import Stage
from workers.contracts.catalogue import CatalogueEntry, EngineInfo
from workers.contracts.errors import BundleUnavailable, DeadlineExceeded, JobFailure, NumericalError
from workers.contracts.job import MAX_ATTEMPTS
from workers.faults import Blame, Fault, free_cached_memory
from workers.inhand import JobInHand, UnitInHand
from workers.offering import engines_of, entry_of, info_of
from workers.scheduler import Depth, Net, Past, Slice, Tick, choose
from workers.stopwatch import stopwatch
from workers.tasks import BatchFailed, Fact, Remedy, Task, TaskFailed, TaskFinished, TickRan, UnitFinished


class Runner:
    """Jobs in hand on one device. Not thread safe: one device thread calls it."""

    def __init__(
        self,
        served: Mapping[str, Bundle],
        nets: Mapping[Net, Answering],
        *,
        engines: Mapping[Net, EngineInfo],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`served` by name, the default first; `nets` prepared, every one of each bundle; `engines` of its stages.

        `clock` is that of the tasks' `submitted_at`: ages and deadlines go by it.
        """
        self._bundles = dict(served)
        self._nets = {replace(net, depth=depth): evaluator for net, evaluator in nets.items() for depth in Depth}
        self._engines = dict(engines)
        self._clock = clock
        self._buckets = {net: evaluator.buckets for net, evaluator in self._nets.items()}
        self._past = Past()
        self._watch = stopwatch(next(iter(self._nets.values())).device)
        self._jobs: dict[str, JobInHand] = {}
        self._undelivered: list[Fact] = []

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        """What is served, and by which engines; the first bundle is the default model."""
        default = next(iter(self._bundles))
        return tuple(
            entry_of(bundle, engines_of(bundle, self._engines), default=default, caches=self._caches(bundle))
            for bundle in self._bundles.values()
        )

    @property
    def has_work(self) -> bool:
        """Whether a tick would do something."""
        return bool(self._jobs or self._undelivered)

    @torch.inference_mode()
    def admit(self, task: Task) -> None:
        """Take a job in; what is wrong with it comes as a fact of the next tick."""
        try:
            run = self._in_hand(task)
            self._jobs[task.job_id] = run
            self._advance(run)
        except Exception as error:  # noqa: BLE001 - one job's fault ends that job alone
            fault = _fault(error, "admitting")
            self._jobs.pop(task.job_id, None)
            self._undelivered.append(TaskFailed(task.job_id, task.attempt, fault.failure))

    def drop(self, job_id: str) -> None:
        """Forget a job, without a fact; repeat-safe."""
        self._jobs.pop(job_id, None)

    @torch.inference_mode()
    def tick(self) -> list[Fact]:
        """Run one batch, if anything waits. An error of the device itself escapes."""
        facts = self._undelivered + self._end_late_jobs()
        self._undelivered = []
        waiting = [entry for run in self._jobs.values() for entry in run.waiting()]
        tick = choose(waiting, buckets=self._buckets, past=self._past, now=self._clock())
        if tick is None:
            return facts
        self._watch.start()
        outputs = self._evaluate(tick)
        self._watch.stop()
        if isinstance(outputs, Fault):
            self._past = self._past.charged(tick, waiting, seconds=self._watch.seconds())
            return facts + self._recover(tick, outputs)
        for part, output in zip(tick.slices, outputs, strict=True):
            facts.extend(self._deliver(tick, part, output))
        seconds = self._watch.seconds()
        self._past = self._past.after(tick, waiting, seconds=seconds)
        ran = TickRan(tick.net.part.value, tick.rows, tick.bucket, seconds, tick.jobs, tick.closed.value)
        return [ran, *facts]

    def close(self) -> None:
        """Drop all jobs and close the engines."""
        self._jobs.clear()
        for net in self._nets.values():
            net.close()

    def _caches(self, bundle: Bundle) -> bool:
        return all(self._nets[Net(bundle.spec.name, stage)].caches for stage in bundle.spec.stages)

    def _end_late_jobs(self) -> list[Fact]:
        now = self._clock()
        late = [run for run in self._jobs.values() if run.late(now)]
        return [self._end(run, DeadlineExceeded.after(run.task.spec.deadline_seconds)) for run in late]

    def _evaluate(self, tick: Tick) -> Sequence[Tensor] | Fault:
        parts = [self._jobs[part.job_id].running[part.unit].take(part) for part in tick.slices]
        try:
            return self._nets[tick.net](parts)
        except Exception as error:  # noqa: BLE001 - whatever the engine raised, its jobs must be told
            return _fault(error, ", ".join(dict.fromkeys(part.unit for part in tick.slices)))

    def _recover(self, tick: Tick, fault: Fault) -> list[Fact]:
        """After a failed batch; its rows still wait. Each step of the way is a tick of its own."""
        smaller = tuple(size for size in self._buckets[tick.net] if size < tick.bucket)
        if fault.blame is Blame.MEMORY:
            free_cached_memory()
            if smaller:
                self._buckets[tick.net] = smaller
                return [_failed(tick, Remedy.SMALLER, fault)]
        if tick.jobs > 1:
            for part in tick.slices:
                self._jobs[part.job_id].part_company()
            return [_failed(tick, Remedy.SPLIT, fault)]
        return self._try_again(tick, tick.slices, fault)

    def _try_again(self, tick: Tick, parts: Sequence[Slice], fault: Fault) -> list[Fact]:
        """Rows of one job that failed by themselves: their units start again, or the job ends."""
        run = self._jobs[parts[0].job_id]
        useless = fault.final or any(part.unit not in run.running for part in parts)  # done: what follows cannot start
        if useless or run.tries + 1 >= MAX_ATTEMPTS:
            return [_failed(tick, Remedy.NONE, fault), self._end(run, fault.failure)]
        run.start_again(part.unit for part in parts)
        return [_failed(tick, Remedy.AGAIN, fault)]

    def _deliver(self, tick: Tick, part: Slice, output: Tensor) -> list[Fact]:
        run = self._jobs.get(part.job_id)
        if run is None:  # failed on an earlier part of this very batch
            return []
        try:
            run.ran()
            result = run.running[part.unit].answer(output)
            return [] if result is None else [self._finish(run, run.running[part.unit], result)]
        except Exception as error:  # noqa: BLE001 - one job's fault ends that job alone
            return self._try_again(tick, [part], _fault(error, part.unit))

    def _finish(self, run: JobInHand, running: UnitInHand, result: Tensor) -> UnitFinished:
        unit = running.unit
        if not bool(torch.isfinite(result).all()):
            raise NumericalError(f"{unit.key} produced values that are not finite")
        frames = units.pictures(unit, result, spec=run.bundle.spec)
        fact = UnitFinished(
            run.task.job_id,
            run.task.attempt,
            unit,
            result.cpu().numpy().copy(),
            to_pixels(frames, bits=run.bundle.spec.bits),
            running.started_at,
            time.time() - running.started_at,
        )
        run.keep(unit, result)
        self._advance(run)
        return fact

    def _end(self, run: JobInHand, error: JobFailure) -> TaskFailed:
        del self._jobs[run.task.job_id]
        return TaskFailed(run.task.job_id, run.task.attempt, error)

    def _advance(self, run: JobInHand) -> None:
        """Start what has become ready; a job with nothing left leaves, and the next tick says so."""
        run.start_ready()
        if not run.running:
            self._jobs.pop(run.task.job_id, None)
            self._undelivered.append(TaskFinished(run.task.job_id, run.task.attempt))

    def _in_hand(self, task: Task) -> JobInHand:
        name = task.spec.model
        if name not in self._bundles:
            raise BundleUnavailable(f"model {name!r} is not served by this worker, only {sorted(self._bundles)}")
        if task.spec.cache > 1 and not self._caches(self._bundles[name]):
            raise BundleUnavailable(f"the engines of {name!r} on this worker cannot reuse features (cache)")
        device = self._nets[Net(name, Stage.COARSE)].device
        return JobInHand(task, self._bundles[name], device=device, now=self._clock())


def load(
    paths: Sequence[Path],
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> Runner:
    """Read the bundles, prepare an engine for each net. BundleError and EngineUnavailable say what is wrong."""
    if threads is not None:
        torch.set_num_threads(threads)
    place = devices.use(device)
    served: dict[str, Bundle] = {}
    nets: dict[Net, Answering] = {}
    engines: dict[Net, EngineInfo] = {}
    for path in paths:
        bundle = bundles.load(path)
        name = bundle.spec.name
        served[name] = bundle
        for stage in bundle.spec.stages:
            choice = select(bundle, stage, device=place, engine=engine, precision=precision)
            choice.engine.prepare()
            nets[Net(name, stage)] = Evaluator(bundle.net(stage), choice.engine)
            engines[Net(name, stage)] = info_of(choice)
        halves = alone.codecs(bundle, device=nets[Net(name, Stage.COARSE)].device)
        nets |= {Net(name, half): evaluator for half, evaluator in halves.items()}
    return Runner(served, nets, engines=engines)


def _fault(error: Exception, where: str) -> Fault:
    """Who is to blame; an error of the device itself is raised, for nothing runs in this process any more."""
    fault = Fault.of(error, where=where)
    if fault.blame is Blame.DEVICE:
        raise error
    return fault


def _failed(tick: Tick, remedy: Remedy, fault: Fault) -> BatchFailed:
    return BatchFailed(tick.net.part.value, tick.rows, tick.bucket, tick.jobs, remedy, fault.failure.message)
