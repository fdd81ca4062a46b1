"""What is saved exactly: guidance that guides nothing is left out, and modulation comes from a table.

The oracle is the net as it is trained and published: time and label in, the batch doubled for guidance.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import drawing
from models.engine import Precision
from models.engines.torch import TorchEngine
from models.evaluator import Evaluator
from models.nn.dit import DiT
from models.schedules import flow_level
from models.spec import BundleSpec, Mode, Stage
from models.units.asking import Asker, Evaluate
from tests.tiny import awake, released_spec, tiny_spec

CPU = torch.device("cpu")
EXACT = 1e-6
SCALE = 4.0


def served(net: DiT) -> Evaluator:
    return Evaluator(net, TorchEngine(net, device=CPU, precision=Precision.FP32, buckets=(1, 2, 4, 8)))


def images(net: DiT, rows: int) -> Tensor:
    spec = net.spec
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, spec.in_channels, spec.input_size, spec.input_size, generator=generator)


def gap(found: Tensor, expected: Tensor) -> float:
    return float(torch.dist(found, expected) / expected.norm())


@pytest.mark.parametrize("spec", [tiny_spec(), released_spec()], ids=["tiny", "released"])
@pytest.mark.parametrize("stage", Stage)
@torch.inference_mode()
def test_modulation_from_a_table_is_that_of_the_net(spec: BundleSpec, stage: Stage) -> None:
    """Every row at its own time and label, asked for twice: made, and found."""
    net = awake(DiT(spec.nets[stage]))
    x, times = images(net, 7), (0.0, 0.125, 1.0, 0.5, 0.125, 0.999, 0.33)
    labels = tuple(row % (net.spec.classes + 1) for row in range(7))
    expected = net(x, torch.tensor([time * net.spec.time_scale for time in times]), torch.tensor(labels))
    evaluator = served(net)
    for _ in range(2):
        (out,) = evaluator([Evaluate(stage, x, times, labels)])
        assert gap(out, expected) <= EXACT


@pytest.mark.parametrize(
    ("spec", "mode"),
    [(released_spec(), Mode.OFFICIAL), (tiny_spec(), Mode.SOUND)],
    ids=["a net without classes", "no class asked for"],
)
@torch.inference_mode()
def test_guidance_between_two_equal_rows_is_one_row(spec: BundleSpec, mode: Mode) -> None:
    """Half the work of the released loop, which doubles every batch: free + scale * (labelled - free)."""
    net = awake(DiT(spec.nets[Stage.COARSE]))
    request = drawing.default_request(spec, seed=0, label=None, mode=mode)
    request = replace(request, guidance_scale=SCALE)
    x, time = images(net, 2), 0.4
    evaluation = next(Asker(Stage.COARSE, net.spec, request).estimate(x, flow_level(time)))
    assert len(evaluation.times) == len(x)
    null = torch.full((4,), net.spec.classes)
    doubled = net(torch.cat([x, x]), torch.full((4,), time * net.spec.time_scale), null)
    labelled, free = doubled.chunk(2)
    (out,) = served(net)([evaluation])
    assert gap(out, free + SCALE * (labelled - free)) <= EXACT
