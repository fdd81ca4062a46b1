"""The runner: drives the units of many jobs on one device, a batch a tick, and tells what came of it as facts.

It owns the generators and the nets; it knows no Redis, file or thread. A job that is admitted again after a crash
brings its kept results and only the rest of its plan is run. A failing batch is tried again part by part, so that one
job's error ends that job alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from models.bundle import Bundle
from models.evaluator import Answering
from workers.contracts.catalogue import CatalogueEntry, EngineInfo
from workers.contracts.errors import BundleUnavailable, DeadlineExceeded, JobFailure
from workers.contracts.job import MAX_ATTEMPTS
from workers.faults import Blame, Fault, free_cached_memory
from workers.inhand import JobInHand, UnitInHand
from workers.leaving import Leave, Outgoing, Parcel, leave, not_finite
from workers.scheduler import Net, Past, Slice, Tick, choose
from workers.serving import Serving
from workers.stopwatch import stopwatch
from workers.tasks import BatchFailed, Fact, Opening, Remedy, Task, TaskFailed, TaskFinished, TickRan
from workers.upgrading import Improving, Upgrading


class Runner:
    """Jobs in hand on one device. Not thread safe: one device thread calls it."""

    def __init__(
        self,
        served: Mapping[str, Bundle],
        nets: Mapping[Net, Answering],
        *,
        engines: Mapping[Net, EngineInfo],
        clock: Callable[[], float] = time.time,
        improving: Improving | None = None,
        leave: Leave = leave,
    ) -> None:
        """`served` by name, the default first; `nets` prepared, every one of each bundle; `engines`: what is told.

        `clock` is that of the tasks' `submitted_at`: ages and deadlines go by it. `improving`: how it comes to other
        engines later; None: it stays with these. `leave`: how results get from the device to the host.
        """
        self._serving = Serving(served, nets, engines=engines)
        self._upgrading = None if improving is None else Upgrading(self._serving, improving)
        self._clock = clock
        self._past = Past()
        self._watch = stopwatch(self._serving.device)
        self._jobs: dict[str, JobInHand] = {}
        self._leave, self._outgoing = leave, Outgoing()

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        """What is served, and by which engines; the first bundle is the default model."""
        return self._serving.catalogue()

    @property
    def has_work(self) -> bool:
        """Whether a tick would do something."""
        return bool(self._jobs or self._outgoing or (self._upgrading and self._upgrading.facts))

    def improved(self) -> Opening | None:
        """See to engines that are built beside the work; old ones that serve no job any more are closed."""
        if self._upgrading is None:
            return None
        self._serving.retire((run.bundle.spec.name, run.generations) for run in self._jobs.values())
        return self._upgrading.look()

    def settle(self) -> None:
        """Stop what is built beside the work; repeat-safe."""
        if self._upgrading is not None:
            self._upgrading.stop()

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
            self._outgoing.put(TaskFailed(task.job_id, task.attempt, fault.failure))

    def drop(self, job_id: str) -> None:
        """Forget a job, without a fact; repeat-safe."""
        self._jobs.pop(job_id, None)
        self._outgoing.forget(job_id)

    @torch.inference_mode()
    def tick(self) -> list[Fact]:
        """Run one batch, if anything waits. An error of the device itself escapes."""
        facts = self._facts_of_engines()
        self._end_late_jobs()
        waiting = [entry for run in self._jobs.values() for entry in run.waiting()]
        tick = choose(waiting, buckets=self._serving.buckets, past=self._past, now=self._clock())
        if tick is None:
            return facts + self._told(self._outgoing.awaited())
        self._watch.start()
        outputs = self._evaluate(tick)
        self._watch.stop()
        if isinstance(outputs, Fault):
            self._past = self._past.charged(tick, waiting, seconds=self._watch.seconds())
            facts.extend(self._recover(tick, outputs))
            return facts + self._told(self._outgoing.arrived())
        for part, output in zip(tick.slices, outputs, strict=True):
            facts.extend(self._deliver(tick, part, output))
        seconds = self._watch.seconds()
        self._past = self._past.after(tick, waiting, seconds=seconds)
        ran = TickRan(tick.net.part.value, tick.rows, tick.bucket, seconds, tick.jobs, tick.closed.value)
        return [ran, *facts, *self._told(self._outgoing.arrived())]

    def close(self) -> None:
        """Drop all jobs and close the engines."""
        self.settle()
        self._jobs.clear()
        self._serving.close()

    def _facts_of_engines(self) -> list[Fact]:
        if self._upgrading is None:
            return []
        facts: list[Fact] = [*self._upgrading.facts]
        self._upgrading.facts = []
        return facts

    def _told(self, facts: list[Fact]) -> list[Fact]:
        """A job of whose result nothing is known but that it is not finite is no longer in hand."""
        for fact in facts:
            if isinstance(fact, TaskFailed):
                run = self._jobs.get(fact.job_id)
                if run is not None and run.task.attempt == fact.attempt:  # else a newer attempt is in hand already
                    del self._jobs[fact.job_id]
        return facts

    def _end_late_jobs(self) -> None:
        now = self._clock()
        for run in [run for run in self._jobs.values() if run.late(now)]:
            self._end(run, DeadlineExceeded.after(run.task.spec.deadline_seconds))

    def _evaluate(self, tick: Tick) -> Sequence[Tensor] | Fault:
        parts = [self._jobs[part.job_id].running[part.unit].take(part) for part in tick.slices]
        try:
            return self._serving[tick.net](parts)
        except Exception as error:  # noqa: BLE001 - whatever the engine raised, its jobs must be told
            return _fault(error, ", ".join(dict.fromkeys(part.unit for part in tick.slices)))

    def _recover(self, tick: Tick, fault: Fault) -> list[Fact]:
        """After a failed batch; its rows still wait. Each step of the way is a tick of its own."""
        smaller = tuple(size for size in self._serving.buckets[tick.net] if size < tick.bucket)
        if fault.blame is Blame.MEMORY:
            free_cached_memory()
            if smaller:
                self._serving.buckets[tick.net] = smaller
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
            self._end(run, fault.failure)
            return [_failed(tick, Remedy.NONE, fault)]
        run.start_again(part.unit for part in parts)
        return [_failed(tick, Remedy.AGAIN, fault)]

    def _deliver(self, tick: Tick, part: Slice, output: Tensor) -> list[Fact]:
        run = self._jobs.get(part.job_id)
        if run is None:  # failed on an earlier part of this very batch
            return []
        try:
            run.ran()
            result = run.running[part.unit].answer(output)
            if result is not None:
                self._finish(run, run.running[part.unit], result)
        except Exception as error:  # noqa: BLE001 - one job's fault ends that job alone
            return self._try_again(tick, [part], _fault(error, part.unit))
        return []

    def _finish(self, run: JobInHand, running: UnitInHand, result: Tensor) -> None:
        unit, leaving = running.unit, self._leave(result)
        if leaving.here and not leaving.is_finite:
            raise not_finite(unit)
        task, began = run.task, running.started_at
        self._outgoing.put(
            Parcel(task.job_id, task.attempt, unit, run.bundle.spec, leaving, began, time.time() - began)
        )
        run.keep(unit, result)
        self._advance(run)

    def _end(self, run: JobInHand, error: JobFailure) -> None:
        del self._jobs[run.task.job_id]
        self._outgoing.put(TaskFailed(run.task.job_id, run.task.attempt, error))

    def _advance(self, run: JobInHand) -> None:
        """Start what has become ready; a job with nothing left leaves, and the next tick says so."""
        run.start_ready()
        if not run.running:
            self._jobs.pop(run.task.job_id, None)
            self._outgoing.put(TaskFinished(run.task.job_id, run.task.attempt))

    def _in_hand(self, task: Task) -> JobInHand:
        name = task.spec.model
        serving = self._serving
        if name not in serving.bundles:
            raise BundleUnavailable(f"model {name!r} is not served by this worker, only {sorted(serving.bundles)}")
        if task.spec.cache > 1 and not serving.caches(name):
            raise BundleUnavailable(f"the engines of {name!r} on this worker cannot reuse features (cache)")
        bundle, engines = serving.bundles[name], serving.generations(name)
        return JobInHand(task, bundle, device=serving.device, now=self._clock(), generations=engines)


def _fault(error: Exception, where: str) -> Fault:
    """Who is to blame; an error of the device itself is raised, for nothing runs in this process any more."""
    fault = Fault.of(error, where=where)
    if fault.blame is Blame.DEVICE:
        raise error
    return fault


def _failed(tick: Tick, remedy: Remedy, fault: Fault) -> BatchFailed:
    return BatchFailed(tick.net.part.value, tick.rows, tick.bucket, tick.jobs, remedy, fault.failure.message)
