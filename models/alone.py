"""One job alone, in order: the plainest driver of units.

The command line and training previews sample through it, and it is the oracle of the scheduler's law: a job among
others gives what it gives here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from models import devices
from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache
from models.engine import Precision
from models.engines import create
from models.evaluator import Answering, CodecEvaluator, Evaluator, Nets, take
from models.noise import NoiseSource, philox
from models.plan import REFERENCE, Request, Unit, UnitKind, plan
from models.spec import BundleSpec, Codec, Stage
from models.units import Evaluate, UnitRun, pictures, start


def evaluators(
    bundle: Bundle,
    *,
    engine: str = "torch",
    precision: Precision = Precision.FP32,
    codec: str = "torch",
    device: torch.device | None = None,
    cache: EngineCache | None = None,
) -> Nets:
    """Every net of a bundle, prepared; `codec` is the engine of the autoencoder, where it has one.

    Plans of a compiled engine come from `cache`, or the default one. `EngineUnavailable` if an engine cannot run here.
    """
    place = devices.use() if device is None else device
    made = partial(create, bundle=bundle, device=place, cache=cache)
    nets: dict[Stage | Codec, Answering] = {}
    for stage in bundle.spec.stages:
        runs = made(engine, net=stage, precision=precision)
        runs.prepare()
        nets[stage] = Evaluator(bundle.net(stage), runs)
    return nets | codecs(bundle, device=place, engine=codec, precision=precision, cache=cache)


def codecs(
    bundle: Bundle,
    *,
    device: torch.device,
    engine: str = "torch",
    precision: Precision = Precision.FP32,
    cache: EngineCache | None = None,
) -> dict[Stage | Codec, Answering]:
    """The halves of the bundle's autoencoder, where it has one, prepared; with torch always in float32."""
    if bundle.spec.autoencoder is None:
        return {}
    nets: dict[Stage | Codec, Answering] = {}
    for half in Codec:
        runs = create(engine, bundle=bundle, net=half, precision=precision, device=device, cache=cache)
        runs.prepare()
        nets[half] = CodecEvaluator(runs)
    return nets


@torch.inference_mode()
def run(
    spec: BundleSpec,
    request: Request,
    *,
    nets: Nets,
    noise: NoiseSource | None = None,
    reference: Tensor | None = None,
) -> Iterator[tuple[Unit, Tensor]]:
    """Each unit of the plan with its result, as they are made; `noise` defaults to the request's seed.

    `reference`: the user's own first frames (n, C, h, w) in [-1, 1], as many as the request says.
    """
    source = philox(request.seed, device=nets[Stage.COARSE].device) if noise is None else noise
    results: dict[str, Tensor] = {} if reference is None else {REFERENCE: reference}
    for unit in plan(spec, request):
        result = drive(start(unit, spec=spec, request=request, results=results, noise=source), nets)
        if unit.kind is not UnitKind.REFINE:
            results[unit.key] = result
        yield unit, result


def drive(unit: UnitRun, nets: Nets) -> Tensor:
    """Run one unit to its end."""
    evaluation = next(unit)
    while True:
        try:
            evaluation = unit.send(_answer(evaluation, nets[evaluation.net]))
        except StopIteration as end:
            result: Tensor = end.value
            return result


def frames(
    spec: BundleSpec, request: Request, *, nets: Nets, reference: Tensor | None = None
) -> Iterator[tuple[Stage, range, Tensor]]:
    """(stage, which frames, (n, C, h, w) in [-1, 1]) as they are made; not always in the order of the sequence."""
    for unit, result in run(spec, request, nets=nets, reference=reference):
        if unit.frames:
            yield unit.stage, unit.frames, pictures(unit, result, spec=spec)


def _answer(evaluation: Evaluate, net: Answering) -> Tensor:
    rows = range(0, len(evaluation.times), net.largest)
    return torch.cat([net([take(evaluation, slice(first, first + net.largest))])[0] for first in rows])
