"""The exported graph computes what torch computes, keeps nothing of where it was made, and is found by its source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from models.engine import Precision
from models.export import MODULATION, OPSET, OUT, X, parity, source_digest
from models.nn.dit import DiT
from models.spec import Stage
from tests.exported import graph, needs_export, net
from tests.tiny import awake, tiny_net

pytestmark = pytest.mark.timeout(900)  # an export takes several seconds of one idle core

BOUNDS = {Precision.FP32: 1e-5, Precision.FP16: 0.015}


def parsed(onnx_bytes: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(onnx_bytes)


@needs_export
@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("rows", [1, 5])
def test_the_graph_equals_torch(precision: Precision, rows: int) -> None:
    error = parity(graph(Stage.REFINE, precision), net(Stage.REFINE), rows=rows)
    assert error <= BOUNDS[precision]


@needs_export
def test_parity_sees_other_weights_and_the_lower_precision() -> None:
    other = awake(DiT(tiny_net(stage=Stage.REFINE)), seed=1)
    assert parity(graph(Stage.REFINE, Precision.FP32), other) > 0.1
    assert parity(graph(Stage.REFINE, Precision.FP16), net(Stage.REFINE)) > 1e-5


@needs_export
@pytest.mark.parametrize("precision", BOUNDS)
def test_inputs_output_and_operators(precision: Precision) -> None:
    model = parsed(graph(Stage.REFINE, precision))
    spec = net(Stage.REFINE).spec
    shapes = {
        tensor.name: [size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim]
        for tensor in (*model.graph.input, *model.graph.output)
    }
    side = spec.input_size
    assert shapes == {
        X: ["batch", spec.in_channels, side, side],
        MODULATION: ["batch", 6 * spec.depth + 2, spec.width],
        OUT: ["batch", spec.out_channels, side, side],
    }
    types = {tensor.type.tensor_type.elem_type for tensor in (*model.graph.input, *model.graph.output)}
    assert types == {1}  # float32, whatever the precision inside
    assert [opset.version for opset in model.opset_import if not opset.domain] == [OPSET]
    assert Counter(node.op_type for node in model.graph.node)["Attention"] == spec.depth


@needs_export
def test_the_graph_holds_no_weights_of_the_modulation() -> None:
    names = [tensor.name for tensor in parsed(graph(Stage.REFINE, Precision.FP16)).graph.initializer]
    assert names
    assert not [name for name in names if "adaLN" in name or "embedder.mlp" in name or "y_embedder" in name]


@needs_export
def test_the_graph_knows_no_paths() -> None:
    for path in (Path(torch.__file__).parent, Path(__file__).parents[2]):
        assert str(path).encode() not in graph(Stage.REFINE, Precision.FP16)


def test_the_source_is_what_would_be_exported() -> None:
    spec = tiny_net(stage=Stage.COARSE)
    digest = source_digest(awake(DiT(spec)), precision=Precision.FP16)
    assert digest == source_digest(awake(DiT(spec)), precision=Precision.FP16)
    deeper = spec.model_copy(update={"heads": 4})
    others = {
        source_digest(awake(DiT(spec)), precision=Precision.BF16),
        source_digest(awake(DiT(spec), seed=1), precision=Precision.FP16),
        source_digest(awake(DiT(deeper)), precision=Precision.FP16),
    }
    assert len(others | {digest}) == 4


def test_the_source_moves_with_one_exported_weight_but_not_with_the_modulation() -> None:
    def changed(name: str) -> str:
        net = awake(DiT(tiny_net(stage=Stage.COARSE)))
        with torch.no_grad():
            net.get_parameter(name).flatten()[0] += 1
        return source_digest(net, precision=Precision.FP16)

    same = source_digest(awake(DiT(tiny_net(stage=Stage.COARSE))), precision=Precision.FP16)
    assert changed("blocks.1.mlp.fc2.bias") != same
    assert changed("pos_embed") != same
    assert changed("blocks.1.adaLN_modulation.1.bias") == same
    assert changed("t_embedder.mlp.0.bias") == same
