"""Recording step costs: every net of a bundle in every bucket, warm, through the seam that the runner uses.

Each run has the rows, labels and times of a real one, so packing, modulation and splitting are in the figures; what
the samplers do between runs is not.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from models import alone
from models import bundle as bundles
from models.bundle import Bundle
from models.engines import Choice, select
from models.evaluator import Answering, Evaluator
from models.spec import BundleSpec, Codec, Stage
from models.units import Evaluate
from workers.contracts.catalogue import EngineInfo
from workers.simulate.costs import Costs, Part

WARM_UPS = 2
OUTSIDE: dict[str, object] = {"description": "", "recipe": {}, "gate": {}, "source": {}}
"""Fields of a bundle's spec that do not bear on its cost."""
_LIBRARIES = ("gridit-serve", "torch")


def record(path: Path, *, engine: str = "auto", precision: str = "auto", rounds: int = 15) -> Iterator[int | Costs]:
    """The number of each round as it ends, and at last the table; raises what `load` and `select` raise.

    Each round runs every net in every bucket once, so that a disturbance is spread over all of them.
    """
    bundle = bundles.load(path)
    choices = {stage: select(bundle, stage, engine=engine, precision=precision) for stage in bundle.spec.stages}
    for choice in choices.values():
        choice.engine.prepare()
    nets: dict[Part, Answering] = {
        stage: Evaluator(bundle.net(stage), choice.engine) for stage, choice in choices.items()
    }
    nets |= alone.codecs(bundle, device=nets[Stage.COARSE].device)
    asked = [(part, rows) for part in nets for rows in _buckets(part, choices)]
    taken: dict[tuple[Part, int], list[float]] = {each: [] for each in asked}
    for done in range(WARM_UPS + rounds):
        for part, rows in asked:
            seconds = run(nets[part], _evaluation(bundle.spec, part, rows))
            if done >= WARM_UPS:
                taken[part, rows].append(seconds)
        yield done + 1
    for net in nets.values():
        net.close()
    yield _table(bundle, choices, taken)


@torch.inference_mode()
def run(net: Answering, evaluation: Evaluate) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    (out,) = net([evaluation])
    out.sum().item()  # on a GPU the call returns before the work is done
    return time.perf_counter() - began


def _buckets(part: Part, choices: dict[Stage, Choice]) -> tuple[int, ...]:
    return choices[part].engine.buckets if isinstance(part, Stage) else (1,)


def _evaluation(spec: BundleSpec, part: Part, rows: int) -> Evaluate:
    """Rows of one net at one step."""
    return Evaluate(part, torch.randn(rows, *_shape(spec, part)), (0.5,) * rows, (0,) * rows)


def _shape(spec: BundleSpec, part: Part) -> tuple[int, int, int]:
    if isinstance(part, Stage):
        net = spec.nets[part]
        return net.in_channels, net.input_size, net.input_size
    side = max(spec.grid * spec.coarse_size, spec.refined_size)
    if part is Codec.ENCODER:
        return spec.channels, side, side
    return spec.net_channels, side // spec.downsample, side // spec.downsample


def _table(bundle: Bundle, choices: dict[Stage, Choice], taken: dict[tuple[Part, int], list[float]]) -> Costs:
    seconds: dict[str, dict[int, float]] = {}
    for (part, rows), times in taken.items():
        seconds.setdefault(part.value, {})[rows] = round(statistics.median(times), 7)
    device = choices[Stage.COARSE].engine.device
    return Costs(
        bundle=bundle.spec.model_copy(update=OUTSIDE),
        bundle_hash=bundle.hash,
        machine=_machine(device),
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}},
        engines={stage.value: _info(choice) for stage, choice in choices.items()},
        seconds=seconds,
    )


def _info(choice: Choice) -> EngineInfo:
    engine = choice.engine
    return EngineInfo(
        engine=engine.name, precision=engine.precision.value, buckets=engine.buckets, device=str(engine.device)
    )


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a {platform.machine()} CPU with {os.cpu_count()} cores"
