"""One job alone, in order: the plainest driver of units.

The command line and training previews sample through it, and it is the oracle of the scheduler's law: a job among
others gives what it gives here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from models.bundle import Bundle
from models.engines import Engine, Precision, create
from models.evaluator import Evaluator, take
from models.noise import NoiseSource, philox
from models.plan import Request, Unit, UnitKind, plan
from models.spec import BundleSpec, Stage
from models.units import Evaluate, UnitRun, coarse_frames, start


def evaluators(
    bundle: Bundle, *, engine: str = "torch", precision: Precision = Precision.FP32
) -> dict[Stage, Evaluator]:
    """Both nets of a bundle, prepared."""
    nets: dict[Stage, Evaluator] = {}
    for stage in Stage:
        runs: Engine = create(engine, bundle=bundle, stage=stage, precision=precision)
        runs.prepare()
        nets[stage] = Evaluator(bundle.net(stage), runs)
    return nets


@torch.inference_mode()
def run(
    spec: BundleSpec, request: Request, *, nets: Mapping[Stage, Evaluator], noise: NoiseSource | None = None
) -> Iterator[tuple[Unit, Tensor]]:
    """Each unit of the plan with its result, as they are made; `noise` defaults to the request's seed."""
    source = philox(request.seed, device=nets[Stage.COARSE].engine.device) if noise is None else noise
    results: dict[str, Tensor] = {}
    for unit in plan(spec, request):
        result = drive(start(unit, spec=spec, request=request, results=results, noise=source), nets)
        if unit.kind is UnitKind.COARSE:
            results[unit.key] = result
        yield unit, result


def drive(unit: UnitRun, nets: Mapping[Stage, Evaluator]) -> Tensor:
    """Run one unit to its end."""
    evaluation = next(unit)
    while True:
        try:
            evaluation = unit.send(_answer(evaluation, nets[evaluation.net]))
        except StopIteration as end:
            result: Tensor = end.value
            return result


def frames(
    spec: BundleSpec, request: Request, *, nets: Mapping[Stage, Evaluator]
) -> Iterator[tuple[Stage, range, Tensor]]:
    """(stage, which frames, (n, C, h, w) in [-1, 1]) as they are made."""
    for unit, result in run(spec, request, nets=nets):
        if unit.kind is UnitKind.COARSE:
            yield Stage.COARSE, unit.frames, coarse_frames(unit, result, spec=spec)
        else:
            yield Stage.REFINE, unit.frames, result


def _answer(evaluation: Evaluate, net: Evaluator) -> Tensor:
    rows = range(0, len(evaluation.times), net.largest)
    return torch.cat([net([take(evaluation, slice(first, first + net.largest))])[0] for first in rows])
