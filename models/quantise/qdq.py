"""Float8 in an ONNX graph: QuantizeLinear and DequantizeLinear before the layers that `models.quantise.fp8` names.

The graph is the float16 one of `compiling.export`, and all else in it stays as it is, so that a compiler still finds
its attention to fuse; in a float32 graph it would not, though the arithmetic is right there too. A layer is known by
its bias, whose name the exporter keeps. Its weight becomes float8 here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.quantise import fp8
from models.quantise.fp8 import Scales


class LayerMissing(RuntimeError):
    """A graph does not hold a layer that has a scale, so scales and graph are not of one net."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(
            f"the graph has no linear layer {', '.join(sorted(names))} with a bias of its own; "
            "scales and graph must be of the same net, exported by models.compiling.export"
        )


@dataclass(frozen=True)
class _Linear:
    name: str
    """Within the net."""
    product: Any
    """Its `MatMul` node: (input, weight (in, out))."""


def quantised(onnx: bytes, scales: Scales) -> bytes:
    """A graph with all layers that have a scale in float8. `LayerMissing` if one is not there."""
    from onnx import load_model_from_string

    model = load_model_from_string(onnx)
    graph = model.graph
    found = {layer.product.name: layer for layer in _linears(graph) if layer.name in scales.of}
    if missing := set(scales.of) - {layer.name for layer in found.values()}:
        raise LayerMissing(missing)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.name in found:
            graph.node.extend(_around(graph, found[node.name], scales.of[found[node.name].name]))
        graph.node.append(node)
    _drop_unused(graph)
    return bytes(model.SerializeToString(deterministic=True))


def _linears(graph: Any) -> Iterator[_Linear]:
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        biases = [match.group() for name in node.input if (match := fp8.LAYER.search(name)) and name.endswith(".bias")]
        taken = [products[name] for name in node.input if name in products]
        if biases and taken:
            yield _Linear(biases[0], taken[0])


def _around(graph: Any, layer: _Linear, scale: float) -> Iterator[Any]:
    """The nodes to put before a product, which is made to take their results."""
    from onnx import helper, numpy_helper

    name, (activation, weight) = layer.name, layer.product.input
    stored = next(one for one in graph.initializer if one.name == weight)
    values = torch.from_numpy(numpy_helper.to_array(stored).copy()).T  # (out, in)
    each = fp8.weight_scales(values)
    small = (values.half().float() / each[:, None]).to(fp8.TYPE).T
    step = _constant(graph, f"{name}.scale", torch.tensor(scale, dtype=values.dtype))
    zero = _constant(graph, f"{name}.zero", torch.zeros((), dtype=fp8.TYPE))
    steps = _constant(graph, f"{name}.weight_scale", each.to(values.dtype))
    held = _constant(graph, f"{name}.weight_float8", small)
    yield helper.make_node("QuantizeLinear", [activation, step, zero], [f"{name}.small"], name=f"{name}.quantise")
    yield helper.make_node("DequantizeLinear", [f"{name}.small", step], [f"{name}.in"], name=f"{name}.dequantise")
    yield helper.make_node(
        "DequantizeLinear", [held, steps], [f"{name}.weight"], name=f"{name}.dequantise_weight", axis=1
    )
    layer.product.input[:] = [f"{name}.in", f"{name}.weight"]


def _constant(graph: Any, name: str, values: Tensor) -> str:
    from onnx import TensorProto, helper

    types = {
        torch.float32: TensorProto.FLOAT,
        torch.float16: TensorProto.FLOAT16,
        fp8.TYPE: TensorProto.FLOAT8E4M3FN,
    }
    raw = values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    graph.initializer.append(helper.make_tensor(name, types[values.dtype], list(values.shape), raw, raw=True))
    return name


def _drop_unused(graph: Any) -> None:
    """Float16 weights that nothing reads any more."""
    read = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
