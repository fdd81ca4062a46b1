"""A job in hand: the generators of its started units and what each of them waits for.

Nothing here chooses or runs; the runner does. A job that comes with kept results starts from them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models import units
from models.bundle import Bundle
from models.media import to_unit
from models.noise import NoiseSource, philox
from models.plan import REFERENCE, Request, Unit, UnitKind, first_needed, plan
from models.spec import Mode, Spacing, Stage
from models.units import Evaluate, UnitRun
from workers.contracts import job as contract
from workers.contracts.errors import BundleUnavailable, ReferenceLost
from workers.scheduler import Company, Net, Waiting
from workers.tasks import RunAlone, Task

COMPANY = {RunAlone.NO: Company.ANY, RunAlone.UNTIL_UNIT: Company.NOBODY}


@dataclass(slots=True)
class UnitInHand:
    """A started unit and what it waits for."""

    unit: Unit
    generator: UnitRun
    evaluation: Evaluate
    started_at: float
    outputs: list[Tensor] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Rows of the evaluation whose outputs are here."""
        return sum(len(output) for output in self.outputs)

    def send(self) -> None:
        """Hand the whole output over; StopIteration carries the unit's result."""
        output, self.outputs = torch.cat(self.outputs), []
        self.evaluation = self.generator.send(output)


class JobInHand:
    """A job's plan less what is done, and its started units."""

    def __init__(self, task: Task, bundle: Bundle, *, device: torch.device) -> None:
        """JobFailure if the bundle cannot do what the job asks."""
        self.task, self.bundle, self.alone = task, bundle, task.alone
        self.request = request_of(task.spec, bundle)
        every = plan(bundle.spec, self.request)
        self.place = {unit.key: index for index, unit in enumerate(every)}
        self.frame = first_needed(every)
        self.todo = [unit for unit in every if unit.key not in task.done]
        self.results = {key: torch.from_numpy(result).to(device) for key, result in task.finished.items()}
        if self.request.reference_frames:
            self.results[REFERENCE] = _reference(task).to(device)
        self.running: dict[str, UnitInHand] = {}
        self.noise: NoiseSource = philox(task.spec.seed, device=device)

    def start_ready(self) -> None:
        """Start every unit whose requirements are kept."""
        ready = [unit for unit in self.todo if all(key in self.results for key in unit.requires)]
        self.todo = [unit for unit in self.todo if unit not in ready]
        for unit in ready:
            generator = units.start(
                unit, spec=self.bundle.spec, request=self.request, results=self.results, noise=self.noise
            )
            self.running[unit.key] = UnitInHand(unit, generator, next(generator), time.time())

    def keep(self, unit: Unit, result: Tensor) -> None:
        """A unit is done; grids are kept for the units that read them."""
        del self.running[unit.key]
        self.alone = RunAlone.NO
        if unit.kind is not UnitKind.REFINE:
            self.results[unit.key] = result

    def waiting(self) -> list[Waiting]:
        """Rows that wait, of every started unit."""
        return [
            Waiting(
                job_id=self.task.job_id,
                unit=key,
                net=Net(self.bundle.spec.name, run.evaluation.net),
                first=run.answered,
                rows=len(run.evaluation.times),
                submitted_at=self.task.submitted_at,
                place=self.place[key],
                stage=run.unit.stage,
                frame=self.frame[key],
                tenant=self.task.tenant,
                priority=self.task.spec.priority,
                company=COMPANY[self.alone],
            )
            for key, run in self.running.items()
        ]


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
