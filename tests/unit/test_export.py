"""The exported graph computes what torch computes, keeps nothing of where it was made, and is found by its source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from models.compiling.build import ExportWrong, verified
from models.compiling.export import OPSET, carried, parity, source_digest, verifiable
from models.engine import Precision
from models.graph import DEEP, OUT, Graph, Part, X, graphs_of
from models.nn.dit import DiT
from models.parity import LIMITS
from models.spec import Codec, Stage
from tests.codecs import SIDES, codecs, needs_diffusers
from tests.codecs import exported as exported_codec
from tests.exported import exported, graph, needs_export
from tests.tiny import awake, tiny_net

pytestmark = pytest.mark.timeout(900)  # an export takes several seconds of one idle core

EXPORTED = [(Precision.FP32, Part.WHOLE), (Precision.FP16, Part.WHOLE), (Precision.FP32, Part.REUSING)]


def parsed(onnx_bytes: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(onnx_bytes)


def shapes(model: Any) -> dict[str, list[str | int]]:
    return {
        tensor.name: [size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim]
        for tensor in (*model.graph.input, *model.graph.output)
    }


def other_weights() -> Graph:
    return graphs_of(Stage.REFINE, awake(DiT(tiny_net(stage=Stage.REFINE)), seed=1))[0]


@needs_export
@pytest.mark.parametrize(("precision", "part"), EXPORTED)
@pytest.mark.parametrize("rows", [1, 5])
def test_every_output_equals_torch(precision: Precision, part: Part, rows: int) -> None:
    onnx = exported(Stage.REFINE, precision, part)
    assert parity(onnx, graph(Stage.REFINE, part), rows=rows) <= LIMITS[precision]


@needs_export
def test_parity_sees_other_weights_and_the_lower_precision() -> None:
    assert parity(exported(Stage.REFINE, Precision.FP32), other_weights()) > 0.1
    assert parity(exported(Stage.REFINE, Precision.FP16), graph(Stage.REFINE)) > 1e-5


@needs_export
def test_parity_sees_that_only_the_second_output_differs() -> None:
    whole = graph(Stage.REFINE)
    model = parsed(exported(Stage.REFINE, Precision.FP32))
    (last,) = [node for node in model.graph.node if DEEP in node.output]
    last.op_type = "Add" if last.op_type == "Sub" else "Neg"
    assert parity(model.SerializeToString(), whole) > 0.1


@needs_export
def test_an_export_that_is_wrong_is_not_built() -> None:
    onnx = exported(Stage.REFINE, Precision.FP16)
    assert 0 < verified(onnx, graph(Stage.REFINE), precision=Precision.FP16) < LIMITS[Precision.FP16]
    with pytest.raises(ExportWrong, match=r"refine-whole: exported in fp16 it differs .* more than 0\.015"):
        verified(onnx, other_weights(), precision=Precision.FP16)


def test_bfloat16_is_not_verified_for_want_of_kernels() -> None:
    assert not verifiable(Precision.BF16)


@needs_export
@pytest.mark.parametrize(("precision", "part"), EXPORTED)
def test_ports_and_operators(precision: Precision, part: Part) -> None:
    model, of = parsed(exported(Stage.REFINE, precision, part)), graph(Stage.REFINE, part)
    ports = (*of.inputs, *of.outputs)
    assert shapes(model) == {port.name: ["batch", *port.shape] for port in ports}
    types = {tensor.type.tensor_type.elem_type for tensor in (*model.graph.input, *model.graph.output)}
    assert types == {1}  # float32, whatever the precision inside
    assert [opset.version for opset in model.opset_import if not opset.domain] == [OPSET]
    assert Counter(node.op_type for node in model.graph.node)["Attention"] == of.attentions


@needs_export
def test_no_weights_are_exported_that_a_graph_does_not_use() -> None:
    whole, reusing = (
        [tensor.name for tensor in parsed(exported(Stage.REFINE, Precision.FP32, part)).graph.initializer]
        for part in (Part.WHOLE, Part.REUSING)
    )
    assert not [name for name in whole if "adaLN" in name or "embedder.mlp" in name or "y_embedder" in name]
    assert [name for name in whole if "blocks.1." in name]
    assert [name for name in reusing if "blocks.0." in name]
    assert not [name for name in reusing if "blocks.1." in name]


@needs_export
def test_the_graph_knows_no_paths() -> None:
    for path in (Path(torch.__file__).parent, Path(__file__).parents[2]):
        assert str(path).encode() not in exported(Stage.REFINE, Precision.FP16)


@needs_export
@needs_diffusers
def test_half_an_autoencoder_is_exported_for_one_image() -> None:
    *_, decoder = codecs(Codec.DECODER)
    onnx = exported_codec(Codec.DECODER, SIDES[-1])
    assert shapes(parsed(onnx)) == {X: [1, 3, 8, 8], OUT: [1, 3, 16, 16]}
    assert parity(onnx, decoder) <= LIMITS[Precision.FP32]


def test_an_autoencoder_is_not_quantised() -> None:
    assert [carried(precision, Codec.ENCODER) for precision in Precision] == ["fp32", "fp16", "bf16", "fp16", "fp32"]
    assert [carried(precision, Stage.COARSE) for precision in Precision] == list(Precision)


class TestTheSource:
    """What finds a plan without exporting anything."""

    def digest(self, precision: Precision = Precision.FP16, *, part: int = 0, **changes: Any) -> str:
        spec = tiny_net(stage=Stage.COARSE).model_copy(update=changes)
        return source_digest(graphs_of(Stage.COARSE, awake(DiT(spec)))[part], precision=precision)

    def changed(self, name: str) -> str:
        net = awake(DiT(tiny_net(stage=Stage.COARSE)))
        with torch.no_grad():
            net.get_parameter(name).flatten()[0] += 1
        return source_digest(graphs_of(Stage.COARSE, net)[0], precision=Precision.FP16)

    def test_it_is_what_would_be_exported(self) -> None:
        others = {self.digest(Precision.BF16), self.digest(part=1), self.digest(heads=4), self.digest(patch=4)}
        assert self.digest() == self.digest()
        assert len(others | {self.digest()}) == 5

    def test_it_does_not_depend_on_names_and_files(self) -> None:
        assert self.digest(file="other.safetensors", sha256="1" * 64) == self.digest()

    def test_it_moves_with_one_exported_weight_but_not_with_the_modulation(self) -> None:
        same = self.digest()
        assert self.changed("blocks.1.mlp.fc2.bias") != same
        assert self.changed("pos_embed") != same
        assert self.changed("blocks.1.adaLN_modulation.1.bias") == same
        assert self.changed("t_embedder.mlp.0.bias") == same

    @needs_diffusers
    def test_it_tells_the_sizes_of_images_apart(self) -> None:
        digests = {source_digest(graph, precision=Precision.FP16) for half in Codec for graph in codecs(half)}
        assert len(digests) == 4
