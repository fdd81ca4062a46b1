"""What the simulator says a job asks of the nets is what its units ask: the units are run on made-up answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import pytest
import torch
from torch import Tensor

from models import samplers
from models.noise import philox
from models.plan import REFERENCE, plan
from models.spec import BundleSpec, Codec
from models.units import Evaluate, start
from tests.driving import spec_of
from tests.laws import test_latents
from tests.simulated import by_model, costs_of
from tests.tiny import released_spec, tiny_spec
from workers.contracts.job import JobSpec, Mode, Stage
from workers.simulate.shapes import Asking, Shapes, asks_of, request_of

SPECS: Mapping[str, BundleSpec] = {
    "pixels": tiny_spec(),
    "latents": test_latents.latent_spec(),
    "released": released_spec(),
    "released latents": test_latents.released_spec(),
}
SOUND: Sequence[Mapping[str, object]] = [
    {"num_frames": 1},
    {"num_frames": 40, "stages": Stage.COARSE},
    {"num_frames": 40, "class_label": None},
    {"num_frames": 21, "guidance_scale": 1.0},
    {"num_frames": 37, "slow_motion": 3},
    {"num_frames": 20, "reference_frames": 5},
    *({"num_frames": 20, "sampler": name} for name in samplers.names()),
]
OFFICIAL: Sequence[Mapping[str, object]] = [
    {"mode": Mode.OFFICIAL, "sampler": "ddpm", "num_frames": frames, "guidance_scale": scale}
    for frames in (8, 40)
    for scale in (1.0, 4.0)
]
CASES = [
    (name, changes)
    for name, spec in SPECS.items()
    for changes in (*SOUND, *(OFFICIAL if name.startswith("released") else []))
]


def answer(evaluation: Evaluate, spec: BundleSpec) -> Tensor:
    """Zeros of the right shape."""
    rows, _, height, width = evaluation.x.shape
    if evaluation.net is Codec.ENCODER:
        return torch.zeros(rows, 2 * spec.net_channels, height // spec.downsample, width // spec.downsample)
    if evaluation.net is Codec.DECODER:
        return torch.zeros(rows, spec.channels, height * spec.downsample, width * spec.downsample)
    return torch.zeros(rows, spec.nets[evaluation.net].out_channels, height, width)


def asked(job: JobSpec, spec: BundleSpec) -> dict[str, list[Asking]]:
    """By unit: what it really asks for, the same askings in a row counted."""
    request = request_of(job, spec)
    results: dict[str, Tensor] = {}
    if job.reference_frames:
        results[REFERENCE] = torch.zeros(job.reference_frames, spec.channels, spec.coarse_size, spec.coarse_size)
    found: dict[str, list[Asking]] = {}
    for unit in plan(spec, request):
        run = start(unit, spec=spec, request=request, results=results, noise=philox(0))
        evaluations = [next(run)]
        while unit.key not in results:
            try:
                evaluations.append(run.send(answer(evaluations[-1], spec)))
            except StopIteration as end:
                results[unit.key] = end.value
        each = [(evaluation.net, len(evaluation.times)) for evaluation in evaluations]
        found[unit.key] = [Asking(*key, len(list(same))) for key, same in groupby(each)]
    return found


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_a_simulated_unit_asks_what_the_unit_asks(name: str, changes: Mapping[str, object]) -> None:
    spec = SPECS[name]
    job = spec_of(**({"class_label": "sky"} | dict(changes)))
    request = request_of(job, spec)
    simulated = {unit.key: list(merged(asks_of(unit, spec=spec, request=request))) for unit in plan(spec, request)}
    assert simulated == asked(job, spec)


def merged(asks: Sequence[Asking]) -> Sequence[Asking]:
    """Equal ones in a row are one."""
    grouped = groupby(asks, key=lambda ask: (ask.part, ask.rows))
    return [Asking(*key, sum(ask.times for ask in same)) for key, same in grouped]


def test_jobs_that_ask_for_the_same_rows_share_a_shape() -> None:
    table = costs_of()
    shapes = Shapes(by_model(table))
    assert shapes.of(table.job(seed=1, class_label="sky")) is shapes.of(table.job(seed=2, class_label="lava", fps=30))
    assert shapes.of(table.job(num_frames=21)) is not shapes.of(table.job(num_frames=20))


def test_a_job_alone_takes_the_sum_of_its_runs() -> None:
    """By hand: 20 frames are two grids of 3 guided steps, then 16 and 4 frames refined in 2 steps each."""
    table = costs_of(base=1.0, row=0.1)
    shape = Shapes(by_model(table)).of(
        table.job(num_frames=20, num_inference_steps=3, refine_steps=2, class_label="sky")
    )
    assert shape.alone == pytest.approx((3 * 1.2, 2 * 2 * 1.8, 3 * 1.2, 2 * 1.4))
    assert shape.seconds == pytest.approx(3.6 + 7.2 + 3.6 + 2.8)
