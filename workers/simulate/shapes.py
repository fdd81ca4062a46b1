"""A job as the device sees it: its units, what each needs, and how many rows of which net it asks for how often.

The units are those of `models.plan`; what one asks for follows from its kind and the sampler, as in `models.units`,
against which it is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.plan import REFERENCE, Request, Unit, UnitKind, plan
from models.spec import BundleSpec, Codec, Mode, Spacing, Stage
from workers.contracts import job as contract
from workers.contracts.job import JobSpec
from workers.simulate.costs import Costs, Part


@dataclass(frozen=True, slots=True)
class Asking:
    """The same number of rows of one net, `times` times, one after the other."""

    part: Part
    rows: int
    times: int


@dataclass(frozen=True, slots=True)
class UnitShape:
    """One unit."""

    unit: Unit
    place: int
    """In its job's plan."""
    asks: tuple[Asking, ...]


@dataclass(frozen=True, slots=True)
class JobShape:
    """All of a job; one and the same for jobs that differ only in seed, class or speed of showing."""

    units: tuple[UnitShape, ...]
    alone: tuple[float, ...]
    """Seconds of each unit by itself, on the machine that the costs are of."""

    @property
    def seconds(self) -> float:
        """Of the whole job, unit after unit."""
        return sum(self.alone)


class Shapes:
    """The shapes of the jobs of some bundles; each is worked out once."""

    def __init__(self, costs: Mapping[str, Costs]) -> None:
        """`costs` by model."""
        self._costs = costs
        self._known: dict[tuple[str, Request], JobShape] = {}

    def of(self, job: JobSpec) -> JobShape:
        """What a job will ask of a device. Features are never reused here, whatever its `cache`."""
        costs = self._costs[job.model]
        request = request_of(job, costs.bundle)
        if (job.model, request) not in self._known:
            self._known[job.model, request] = _shape(request, costs)
        return self._known[job.model, request]


def request_of(job: JobSpec, bundle: BundleSpec) -> Request:
    """What the models need to know of a job; equal for jobs that ask for the same rows."""
    guided = bool(bundle.classes and job.class_label) and job.guidance_scale != 1
    return Request(
        num_frames=job.num_frames,
        seed=0,
        label=0 if guided else None,
        coarse_steps=job.num_inference_steps,
        refine_steps=job.refine_steps,
        sampler=job.sampler,
        guidance_scale=2.0 if guided else 1.0,
        mode=Mode(job.mode.value),
        spacing=Spacing(job.spacing),
        slow_motion=job.slow_motion,
        reference_frames=job.reference_frames,
        last=Stage.REFINE if job.stages is contract.Stage.REFINED else Stage.COARSE,
    )


def asks_of(unit: Unit, *, spec: BundleSpec, request: Request) -> tuple[Asking, ...]:
    """The evaluations of a unit, in order."""
    latent = spec.autoencoder is not None
    if unit.kind is UnitKind.DECODE:
        return (Asking(Codec.DECODER, 1, 1),)
    refining = unit.kind is UnitKind.REFINE
    stage, rows = (Stage.REFINE, len(unit.frames)) if refining else (Stage.COARSE, 1)
    guided = request.label is not None and spec.nets[stage].classes > 0
    doubled = guided and (stage is Stage.COARSE or request.mode is Mode.OFFICIAL)
    steps = request.refine_steps if refining else request.coarse_steps
    asks = [Asking(Codec.ENCODER, rows if refining else 1, 1)] * (_encodings(unit, request) if latent else 0)
    asks.append(Asking(stage, rows * (1 + doubled), evaluations(request.sampler, steps)))
    if refining and latent:
        asks.append(Asking(Codec.DECODER, rows, 1))
    return tuple(asks)


def evaluations(sampler: str, steps: int) -> int:
    """How often a sampler asks in so many steps."""
    return 2 * steps - 1 if sampler == "heun" else steps


def _encodings(unit: Unit, request: Request) -> int:
    """How many pictures a unit sees through the encoder before its first step."""
    if unit.kind is UnitKind.REFINE:
        return 1
    return len(unit.requires) if request.mode is Mode.OFFICIAL else unit.requires.count(REFERENCE)


def _shape(request: Request, costs: Costs) -> JobShape:
    units = tuple(
        UnitShape(unit, place, asks_of(unit, spec=costs.bundle, request=request))
        for place, unit in enumerate(plan(costs.bundle, request))
    )
    alone = tuple(sum(ask.times * costs.alone(ask.part, ask.rows) for ask in unit.asks) for unit in units)
    return JobShape(units, alone)
