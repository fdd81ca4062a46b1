"""OpenVINO on a net of the size that CPU figures are given for: width 384, depth 12, 256 tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from models import parity
from models.engine import EngineUnavailable, Precision
from models.engines import openvino
from models.engines._opening import rows_are_independent
from models.engines._openvino import check
from models.graph import Graph, graphs_of
from models.nn.dit import DiT
from models.spec import Prediction, ScheduleName, Stage
from tests.installed import need_openvino
from tests.tiny import awake, tiny_net

need_openvino()


pytestmark = pytest.mark.engines

SMALL = {"width": 384, "depth": 12, "heads": 6, "input_size": 32, "in_channels": 4, "out_channels": 8, "classes": 0}


@cache
def whole() -> tuple[Graph, Any]:
    kind = {"prediction": Prediction.EPSILON, "schedule": ScheduleName.LINEAR, "time_scale": 1.0}
    graph = graphs_of(Stage.COARSE, awake(DiT(tiny_net(stage=Stage.COARSE).model_copy(update=SMALL | kind))))[0]
    return graph, openvino.convert(graph)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_parity_and_rows(precision: Precision) -> None:
    try:
        check(precision)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    graph, model = whole()
    plan = openvino.plan_of(model, precision=precision)
    engine = openvino.CachingOpenVINOEngine((graph,), {graph.name: plan}, precision=precision, buckets=(1, 4))
    engine.prepare()
    parity.check(engine, graph)
    assert rows_are_independent(engine, graph)
    engine.close()
