"""The runner: drives the units of many jobs on one device, a batch a tick, and tells what came of it as facts.

It owns the generators and the nets; it knows no Redis, file or thread. A job that is admitted again after a crash
brings its kept results and only the rest of its plan is run. A failing batch is tried again part by part, so that one
job's error ends that job alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models import alone, devices, units
from models import bundle as bundles
from models.bundle import Bundle
from models.engines import Choice, select
from models.evaluator import Answering, Evaluator, take
from models.media import to_pixels
from models.spec import OFFICIAL_GUIDANCE, OFFICIAL_STEPS, Spacing, Stage
from models.units import Evaluate
from workers.contracts import job as contract
from workers.contracts.catalogue import CatalogueEntry, EngineInfo
from workers.contracts.errors import BundleUnavailable, JobFailure, NumericalError
from workers.inhand import JobInHand, UnitInHand
from workers.scheduler import Net, Past, Slice, Tick, choose
from workers.tasks import STAGES, Fact, Task, TaskFailed, TaskFinished, TickRan, UnitFinished


class Runner:
    """Jobs in hand on one device. Not thread safe: one device thread calls it."""

    def __init__(
        self, served: Mapping[str, Bundle], nets: Mapping[Net, Answering], *, engines: Mapping[Net, EngineInfo]
    ) -> None:
        """`served` by name, the default first; `nets` prepared, every one of each bundle; `engines` of its stages."""
        self._bundles = dict(served)
        self._nets = dict(nets)
        self._engines = dict(engines)
        self._buckets = {net: evaluator.buckets for net, evaluator in self._nets.items()}
        self._past = Past()
        self._jobs: dict[str, JobInHand] = {}
        self._undelivered: list[Fact] = []

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        """What is served, and by which engines; the first bundle is the default model."""
        default = next(iter(self._bundles))
        return tuple(
            _entry(bundle, _engines_of(bundle, self._engines), default=default).evolve(caches=self._caches(bundle))
            for name, bundle in self._bundles.items()
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
            self._jobs.pop(task.job_id, None)
            self._undelivered.append(TaskFailed(task.job_id, task.attempt, _failure(error, "admitting")))

    def drop(self, job_id: str) -> None:
        """Forget a job, without a fact; repeat-safe."""
        self._jobs.pop(job_id, None)

    @torch.inference_mode()
    def tick(self) -> list[Fact]:
        """Run one batch, if anything waits."""
        facts, self._undelivered = self._undelivered, []
        waiting = [entry for run in self._jobs.values() for entry in run.waiting()]
        tick = choose(waiting, buckets=self._buckets, past=self._past, now=time.time())
        if tick is not None:
            facts.extend(self._run(tick))
            seconds = next((fact.seconds for fact in facts if isinstance(fact, TickRan)), 0.0)
            self._past = self._past.after(tick, waiting, seconds=seconds)
        return facts

    def close(self) -> None:
        """Drop all jobs and close the engines."""
        self._jobs.clear()
        for net in self._nets.values():
            net.close()

    def _caches(self, bundle: Bundle) -> bool:
        return all(self._nets[Net(bundle.spec.name, stage)].caches for stage in bundle.spec.stages)

    def _run(self, tick: Tick) -> list[Fact]:
        evaluator = self._nets[tick.net]
        parts = [self._part(part) for part in tick.slices]
        began = time.perf_counter()
        try:
            outputs: Sequence[Tensor] = evaluator(parts)
        except Exception as error:  # noqa: BLE001 - whatever the engine raised, its jobs must be told
            return self._run_apart(tick, error)
        seconds = time.perf_counter() - began
        rows = tick.rows
        facts: list[Fact] = [TickRan(tick.net.part.value, rows, evaluator.bucket(rows), seconds, tick.jobs)]
        for part, output in zip(tick.slices, outputs, strict=True):
            facts.extend(self._deliver(part, output))
        return facts

    def _run_apart(self, tick: Tick, error: Exception) -> list[Fact]:
        """After a failed batch: each part by itself; a part that fails by itself ends its job."""
        if len(tick.slices) == 1:
            return self._fail(tick.slices[0].job_id, _failure(error, tick.slices[0].unit))
        alone = [replace(tick, slices=(part,)) for part in tick.slices]
        return [fact for single in alone if single.slices[0].job_id in self._jobs for fact in self._run(single)]

    def _part(self, part: Slice) -> Evaluate:
        return take(self._jobs[part.job_id].running[part.unit].evaluation, slice(part.first, part.stop))

    def _deliver(self, part: Slice, output: Tensor) -> list[Fact]:
        run = self._jobs.get(part.job_id)
        if run is None:  # failed on an earlier part of this very batch
            return []
        running = run.running[part.unit]
        running.outputs.append(output)
        if part.stop < len(running.evaluation.times):
            return []
        try:
            running.send()
        except StopIteration as end:
            return self._finish(run, running, end.value)
        except Exception as error:  # noqa: BLE001 - one job's fault ends that job alone
            return self._fail(part.job_id, _failure(error, part.unit))
        return []

    def _finish(self, run: JobInHand, running: UnitInHand, result: Tensor) -> list[Fact]:
        unit = running.unit
        if not bool(torch.isfinite(result).all()):
            return self._fail(run.task.job_id, NumericalError(f"{unit.key} produced values that are not finite"))
        run.keep(unit, result)
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
        self._advance(run)
        return [fact]

    def _fail(self, job_id: str, error: JobFailure) -> list[Fact]:
        run = self._jobs.pop(job_id)
        return [TaskFailed(job_id, run.task.attempt, error)]

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
        return JobInHand(task, self._bundles[name], device=self._nets[Net(name, Stage.COARSE)].device)


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
            engines[Net(name, stage)] = _info(choice)
        halves = alone.codecs(bundle, device=nets[Net(name, Stage.COARSE)].device)
        nets |= {Net(name, half): evaluator for half, evaluator in halves.items()}
    return Runner(served, nets, engines=engines)


def _engines_of(bundle: Bundle, engines: Mapping[Net, EngineInfo]) -> dict[str, EngineInfo]:
    return {stage.value: engines[Net(bundle.spec.name, stage)] for stage in bundle.spec.stages}


def _entry(bundle: Bundle, engines: Mapping[str, EngineInfo], *, default: str) -> CatalogueEntry:
    spec = bundle.spec
    return CatalogueEntry(
        name=spec.name,
        hash=bundle.hash,
        description=spec.description,
        license=spec.license,
        classes=spec.classes,
        samplers=spec.samplers,
        spacings=tuple(Spacing),
        modes=tuple(contract.Mode(mode.value) for mode in spec.modes),
        stages=tuple(STAGES[stage.value] for stage in spec.stages),
        grid=spec.grid,
        coarse_size=spec.coarse_size,
        refined_size=spec.refined_size,
        bits=spec.bits,
        value_range=spec.value_range,
        max_frames=spec.limits.num_frames,
        max_steps=spec.limits.steps,
        max_guidance_scale=spec.limits.guidance_scale,
        default_num_frames=spec.defaults.num_frames,
        default_fps=spec.defaults.fps,
        default_sampler=spec.defaults.sampler,
        default_spacing=spec.defaults.spacing,
        official_steps=OFFICIAL_STEPS,
        official_guidance_scale=OFFICIAL_GUIDANCE,
        default_steps=spec.defaults.coarse_steps,
        default_refine_steps=spec.defaults.refine_steps,
        default_guidance_scale=spec.defaults.guidance_scale,
        is_default=spec.name == default,
        engines=dict(engines),
        seen_at=time.time(),
    )


def _info(choice: Choice) -> EngineInfo:
    engine = choice.engine
    return EngineInfo(
        engine=engine.name,
        precision=engine.precision.value,
        buckets=engine.buckets,
        device=devices.described(engine.device),
        reason=choice.reason,
    )


def _failure(error: Exception, where: str) -> JobFailure:
    if isinstance(error, JobFailure):
        return error
    return JobFailure(f"{type(error).__name__} in {where}: {error}")
