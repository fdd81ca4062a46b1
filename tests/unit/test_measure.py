"""What is measured of a compiled engine: engines take turns, time is bounded, and the cache keeps the figures."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.builds.measure import measure, measured
from models.compiling.engine_cache import EngineCache
from models.engine import Precision, Rows
from models.engines.torch import TorchEngine
from models.graph import Graph, graphs_of
from models.nn.dit import DiT
from models.spec import Stage
from tests.compiled import build
from tests.installed import need_openvino
from tests.tiny import awake, tiny_bundle, tiny_net

CPU = torch.device("cpu")
BUCKETS = (1, 2, 4)
_counter = itertools.count()


class Noting(TorchEngine):
    """Torch, somewhat off, that notes when it ran how many rows."""

    def __init__(self, net: DiT, *, off: float = 0.0) -> None:
        super().__init__(net, device=CPU, precision=Precision.FP32, buckets=BUCKETS)
        self.off, self.ran = off, list[tuple[int, int]]()

    def run(self, batch: Rows) -> Tensor:
        self.ran.append((next(_counter), len(batch.x)))
        return super().run(batch) * (1 + self.off)

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        out, deep = super().run_keeping(batch)
        return out * (1 + self.off), deep


def whole() -> tuple[Graph, DiT]:
    net = awake(DiT(tiny_net(stage=Stage.REFINE)))
    return graphs_of(Stage.REFINE, net)[0], net


def test_parity_is_the_gap_to_torch() -> None:
    graph, net = whole()
    found = measure(Noting(net, off=0.01), Noting(net), graph, rounds=1)
    assert found.parity == pytest.approx(0.01, rel=1e-3)
    assert (found.device, found.torch_precision) == ("cpu", Precision.FP32)


def test_engines_take_turns() -> None:
    """Whatever else the machine does while one runs, it does while the other runs."""
    graph, net = whole()
    engine, against = Noting(net), Noting(net)
    found = measure(engine, against, graph, rounds=3)
    assert set(found.seconds) == set(found.torch_seconds) == set(BUCKETS)
    assert [rows for _, rows in engine.ran] == [rows for _, rows in against.ran]
    order = sorted([(when, "engine") for when, _ in engine.ran] + [(when, "torch") for when, _ in against.ran])
    assert [who for _, who in order] == ["engine", "torch"] * len(engine.ran)
    assert all(seconds > 0 for seconds in (*found.seconds.values(), *found.torch_seconds.values()))


def test_without_time_there_is_one_bucket_and_one_round() -> None:
    graph, net = whole()
    engine = Noting(net)
    found = measure(engine, Noting(net), graph, rounds=9, budget=0)
    assert set(found.seconds) == {1}
    assert [rows for _, rows in engine.ran].count(1) == 2  # to warm up, and to be timed


def test_plans_are_measured_and_the_cache_keeps_it(tmp_path: Path) -> None:
    """Both graphs of a net, from a cache that is not the default one."""
    need_openvino()
    bundle, cache = tiny_bundle(tmp_path / "tiny"), EngineCache(tmp_path / "engines")
    _, records = build(bundle, Stage.COARSE, precision=Precision.FP32, cache=cache)
    assert all(record.measured is None for record in records)
    known = measured(
        bundle,
        Stage.COARSE,
        engine="openvino",
        precision=Precision.FP32,
        cache=cache,
        records=records,
        device=CPU,
        buckets=BUCKETS,
    )
    assert sorted(record.graph for record in known) == ["coarse-reusing", "coarse-whole"]
    for record in known:
        assert record.measured is not None
        assert record.measured.parity < 1e-5
        assert set(record.measured.seconds) == set(BUCKETS)
    assert {record.graph: record for record in cache.records()} == {record.graph: record for record in known}
