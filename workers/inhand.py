"""A job in hand: the generators of its started units and what each of them waits for.

Nothing here chooses or runs; the runner does. A job that comes with kept results starts from them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models import units
from models.bundle import Bundle
from models.engine import NetName
from models.evaluator import take
from models.media import to_unit
from models.noise import NoiseSource, ahead, philox
from models.plan import REFERENCE, Request, Unit, UnitKind, first_needed, plan
from models.spec import Mode, Spacing, Stage
from models.units import Evaluate, UnitRun
from models.units.asking import Reuse
from workers.contracts import job as contract
from workers.contracts.errors import BundleUnavailable, ReferenceLost
from workers.scheduler import Company, Depth, Net, Slice, Waiting
from workers.tasks import RunAlone, Task

REFINED_AT_ONCE = 64
"""Frames of one job whose refinement is begun: two of the largest buckets that engines have."""
COMPANY = {RunAlone.NO: Company.ANY, RunAlone.UNTIL_UNIT: Company.NOBODY}


@dataclass(slots=True)
class UnitInHand:
    """A started unit and what it waits for."""

    unit: Unit
    generator: UnitRun
    evaluation: Evaluate
    started_at: float
    outputs: list[Tensor] = field(default_factory=list)
    answered: int = 0
    """Rows of the evaluation whose outputs are here."""
    waiting: Waiting | None = None
    """What it waited for last."""

    def take(self, part: Slice) -> Evaluate:
        """Some rows of what it waits for."""
        if part.rows == len(self.evaluation.times):
            return self.evaluation
        return take(self.evaluation, slice(part.first, part.stop))

    def answer(self, output: Tensor) -> Tensor | None:
        """Take the next rows; after the last of them go on. The unit's result, once it is done."""
        self.outputs.append(output)
        self.answered += len(output)
        if self.answered < len(self.evaluation.times):
            return None
        whole = output if len(self.outputs) == 1 else torch.cat(self.outputs)
        self.outputs, self.answered = [], 0
        try:
            self.evaluation = self.generator.send(whole)
        except StopIteration as end:
            result: Tensor = end.value
            return result
        return None


class JobInHand:
    """A job's plan less what is done, and its started units."""

    def __init__(
        self,
        task: Task,
        bundle: Bundle,
        *,
        device: torch.device,
        now: float,
        generations: Mapping[NetName, int] | None = None,
    ) -> None:
        """JobFailure if the bundle cannot do what the job asks; `now` on the clock that `late` is asked by.

        `generations`: the engines of the nets that serve it to its end; by default the first ones.
        """
        self.task, self.bundle, self.company = task, bundle, COMPANY[task.alone]
        self.generations = dict(generations or {})
        self.request = request_of(task.spec, bundle)
        every = plan(bundle.spec, self.request)
        self.place = {unit.key: index for index, unit in enumerate(every)}
        self.frame = first_needed(every)
        self.todo = [unit for unit in every if unit.key not in task.done]
        self.results = {key: torch.from_numpy(result).to(device) for key, result in task.finished.items()}
        if self.request.reference_frames:
            self.results[REFERENCE] = _reference(task).to(device)
        self.running: dict[str, UnitInHand] = {}
        self.noise: NoiseSource = ahead(philox(task.spec.seed, device=device))
        self.tries = 0
        """Failures of its own since a unit was done."""
        self._late_at = math.inf if task.deadline_in is None else now + task.deadline_in

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return now >= self._late_at

    def start_ready(self) -> None:
        """Start every unit whose requirements are kept; of refinement, which fills the device's memory, the next."""
        rows = sum(len(run.unit.frames) for run in self.running.values() if run.unit.kind is UnitKind.REFINE)
        for unit in [unit for unit in self.todo if all(key in self.results for key in unit.requires)]:
            if unit.kind is UnitKind.REFINE:
                if rows >= REFINED_AT_ONCE:
                    continue
                rows += len(unit.frames)
            self.todo.remove(unit)
            self._start(unit)

    def start_again(self, keys: Iterable[str]) -> None:
        """Units that failed start at their first step, with the same noise; the job keeps to itself from now on."""
        self.tries += 1
        self.part_company()
        for key in keys:
            self._start(self.running[key].unit)

    def part_company(self) -> None:
        """No other job in its batches, for one run or, if it has failed by itself, until a unit is done."""
        if self.company is Company.ANY:
            self.company = Company.OWN_BATCH

    def ran(self) -> None:
        """A batch with it went well: whatever made one fail was another's fault, unless it has failed by itself."""
        if self.company is Company.OWN_BATCH and not self.tries:
            self.company = Company.ANY

    def keep(self, unit: Unit, result: Tensor) -> None:
        """A unit is done; grids are kept for the units that read them."""
        del self.running[unit.key]
        self.company, self.tries = Company.ANY, 0
        if unit.kind is not UnitKind.REFINE:
            self.results[unit.key] = result

    def waiting(self) -> list[Waiting]:
        """Rows that wait, of every started unit."""
        return [self._waiting(key, run) for key, run in self.running.items()]

    def _waiting(self, key: str, run: UnitInHand) -> Waiting:
        """Most steps of a unit wait for the same: the value is made anew only where it differs."""
        asked, first, rows = run.evaluation, run.answered, len(run.evaluation.times)
        depth = Depth.SHALLOW if asked.reuse is Reuse.TAKE else Depth.WHOLE
        net = Net(self.bundle.spec.name, asked.net, depth, self.generations.get(asked.net, 0))
        last = run.waiting
        if last and (last.net, last.first, last.rows, last.company) == (net, first, rows, self.company):
            return last
        run.waiting = Waiting(
            job_id=self.task.job_id,
            unit=key,
            net=net,
            first=first,
            rows=rows,
            submitted_at=self.task.submitted_at,
            place=self.place[key],
            stage=run.unit.stage,
            frame=self.frame[key],
            tenant=self.task.tenant,
            priority=self.task.spec.priority,
            company=self.company,
        )
        return run.waiting

    def _start(self, unit: Unit) -> None:
        generator = units.start(
            unit, spec=self.bundle.spec, request=self.request, results=self.results, noise=self.noise
        )
        self.running[unit.key] = UnitInHand(unit, generator, next(generator), time.time())


def _reference(task: Task) -> Tensor:
    """The user's own frames, (n, C, h, w) in [-1, 1]."""
    if task.reference is None:
        raise ReferenceLost("the frames of input_reference cannot be read any more; submit the job again")
    return to_unit(task.reference)


def request_of(spec: contract.JobSpec, bundle: Bundle) -> Request:
    """What the models need to know of a job."""
    classes, label = bundle.spec.classes, spec.class_label
    if label is not None and classes and label not in classes:
        raise BundleUnavailable(f"the bundle {bundle.spec.name!r} has no class {label!r} any more, only {classes}")
    return Request(
        num_frames=spec.num_frames,
        seed=spec.seed,
        label=classes.index(label) if label is not None and classes else None,
        coarse_steps=spec.num_inference_steps,
        refine_steps=spec.refine_steps,
        sampler=spec.sampler,
        guidance_scale=spec.guidance_scale,
        mode=Mode(spec.mode.value),
        spacing=Spacing(spec.spacing),
        slow_motion=spec.slow_motion,
        cache=spec.cache,
        reference_frames=spec.reference_frames,
        last=Stage.REFINE if spec.stages is contract.Stage.REFINED else Stage.COARSE,
    )
