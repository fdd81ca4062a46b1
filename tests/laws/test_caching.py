"""Laws of feature caching: exact where nothing is reused, cheaper where it is, off where there is little to reuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import alone
from models.engine import CachingEngine, Precision, Rows
from models.engines.torch import TorchEngine
from models.evaluator import Evaluator, Nets
from models.nn.dit import DiT
from models.plan import Request
from models.spec import Stage
from models.units import Evaluate
from models.units.asking import Memory, Reuse
from tests.tiny import awake, tiny_net, tiny_spec

CPU = torch.device("cpu")


class Counting(TorchEngine):
    """The same engine, and how often it ran which way."""

    whole = 0
    reusing = 0

    def run(self, batch: Rows) -> Tensor:
        self.whole += 1
        return super().run(batch)

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        self.whole += 1
        return super().run_keeping(batch)

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        self.reusing += 1
        return super().run_reusing(batch, deep)


def nets() -> dict[Stage, tuple[Evaluator, Counting]]:
    made = {}
    for index, stage in enumerate(Stage):
        net = awake(DiT(tiny_net(stage=stage)), seed=index)
        engine = Counting(awake(DiT(net.spec), seed=index), device=CPU, precision=Precision.FP32, buckets=(1, 2, 4, 16))
        made[stage] = (Evaluator(net, engine), engine)
    return made


def request(**changes: object) -> Request:
    return replace(Request(16, 0, 1, 8, 4, "euler", 1.5), **changes)  # type: ignore[arg-type]


def evaluation(reuse: Reuse, memory: Memory, *, rows: int = 3, first: int = 0, seed: int = 0) -> Evaluate:
    x = torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Evaluate(Stage.COARSE, x, (0.5,) * rows, (1,) * rows, reuse, memory, first)


def test_the_torch_engine_caches() -> None:
    assert isinstance(nets()[Stage.COARSE][1], CachingEngine)


def test_keeping_changes_no_bit() -> None:
    net, _ = nets()[Stage.COARSE]
    plain, kept = net([evaluation(Reuse.NO, Memory())]), net([evaluation(Reuse.KEEP, Memory())])
    assert torch.equal(plain[0], kept[0])


def test_features_of_the_very_same_step_give_the_same_answer() -> None:
    net, _ = nets()[Stage.COARSE]
    memory = Memory()
    (kept,) = net([evaluation(Reuse.KEEP, memory)])
    (again,) = net([evaluation(Reuse.TAKE, memory)])
    assert torch.allclose(kept, again, atol=1e-5)
    (other,) = net([evaluation(Reuse.TAKE, memory, seed=1)])
    (right,) = net([evaluation(Reuse.NO, Memory(), seed=1)])
    assert not torch.allclose(other, right, atol=1e-3), "another input answered with stale features differs"


def test_each_row_takes_its_own_features_whatever_it_is_batched_with() -> None:
    net, _ = nets()[Stage.COARSE]
    one, two = Memory(), Memory()
    net([evaluation(Reuse.KEEP, one, seed=1), evaluation(Reuse.KEEP, two, seed=2)])
    fresh = evaluation(Reuse.NO, Memory(), seed=3)
    mixed = net([evaluation(Reuse.TAKE, two, seed=2), fresh, evaluation(Reuse.TAKE, one, seed=1)])
    assert torch.equal(mixed[0], net([evaluation(Reuse.TAKE, two, seed=2)])[0])
    assert torch.equal(mixed[1], net([fresh])[0])
    assert torch.equal(mixed[2], net([evaluation(Reuse.TAKE, one, seed=1)])[0])


@pytest.mark.parametrize(("cache", "whole", "reusing"), [(1, 8, 0), (2, 4, 4), (3, 3, 5), (4, 2, 6), (5, 8, 0)])
def test_every_nth_step_is_whole(cache: int, whole: int, reusing: int) -> None:
    """Of eight coarse steps; too few for two rounds of five, which then are all whole."""
    made = nets()
    evaluators: Nets = {stage: net for stage, (net, _) in made.items()}
    list(alone.run(tiny_spec(), request(cache=cache, last=Stage.COARSE), nets=evaluators))
    engine = made[Stage.COARSE][1]
    assert (engine.whole, engine.reusing) == (whole, reusing)


def test_reuse_changes_the_picture() -> None:
    """Else nothing would be reused at all; how much it changes a trained net's picture is a benchmark's to say."""
    drawn = []
    for cache in (1, 2):
        wanted = request(cache=cache, last=Stage.COARSE)
        ((_, result),) = alone.run(tiny_spec(), wanted, nets={stage: net for stage, (net, _) in nets().items()})
        drawn.append(result)
    assert float((drawn[1] - drawn[0]).abs().max()) > 0
