"""A bundle is compiled in 8 bits from end to end: calibrated, quantised, judged, built and kept with its figures.

Minutes long, so with the engines' suite. The nets are tiny and were never trained; whether a real bundle's pictures
hold, `gridit compile` says when it is run.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from models.bench.opening import Place, open_unjudged
from models.builds.compile import Done, compile_bundle
from models.compiling import flavours
from models.compiling.build import Outcome
from models.compiling.engine_cache import EngineCache
from models.engine import EngineUnavailable, Precision, Rows
from models.graph import graphs
from models.quantise.preparing import quantisable
from models.spec import Stage
from tests.tiny import tiny_bundle


def compiler_of(precision: Precision) -> tuple[str, str]:
    """The engine that computes in it, and a target; skips where a package is missing."""
    if precision is Precision.INT8:
        if any(find_spec(package) is None for package in ("openvino", "nncf")):
            pytest.skip("openvino and nncf come with the extra int8, which is not installed")
        return "openvino", "current"
    try:
        flavours.detect()
    except EngineUnavailable as why:
        pytest.skip(str(why))
    return "tensorrt", "sm89"


@pytest.mark.engines
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_bundle_is_compiled_in_8_bits_and_found_again(tmp_path: Path, precision: Precision) -> None:
    engine, target = compiler_of(precision)
    bundle, cache = tiny_bundle(tmp_path / "tiny"), EngineCache(tmp_path / "cache")

    def compiled() -> list[Done]:
        facts = compile_bundle(
            bundle.path, engine=engine, precision=precision, targets=[target], buckets=(1, 2), cache=cache
        )
        return [fact for fact in facts if isinstance(fact, Done)]

    first, second = compiled(), compiled()
    assert [fact.outcome for fact in first] == [Outcome.BUILT] * 4
    assert [fact.outcome for fact in second] == [Outcome.HIT] * 4
    assert [fact.record for fact in second] == [fact.record for fact in first]
    whole = [graph.name for stage in bundle.spec.stages for graph in graphs(bundle, stage) if quantisable(graph)]
    for record in (fact.record for fact in first if fact.record.graph in whole):
        assert record.recipe.quantisation is not None
        assert record.quality is not None
        assert record.quality.accepted
        assert record.quality.quantised.keys() == record.quality.unquantised.keys()
        assert record.quality.quantised != record.quality.unquantised


@pytest.mark.engines
def test_integers_that_nobody_judged_can_be_timed(tmp_path: Path) -> None:
    compiler_of(Precision.INT8)
    bundle = tiny_bundle(tmp_path / "tiny")
    engine = open_unjudged(Place(bundle, Stage.COARSE, (1, 2), torch.device("cpu")))
    whole = graphs(bundle, Stage.COARSE)[0]
    x, modulation = whole.example(2)
    right = whole.answer((x, modulation))[0]
    assert 0 < float(torch.dist(engine.run(Rows(x, modulation)), right) / right.norm()) < 0.5
    engine.close()
