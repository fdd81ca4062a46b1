"""From a graph to ONNX, for compilers of other engines.

The ONNX graph has the ports of the graph, and a free batch where it is of a DiT; half an autoencoder runs one image at
a time, so its batch is one. It computes in the precision it was exported in; inputs and outputs are float32 in every
precision, so one buffer layout serves all engines. The bytes are the same for the same weights: nothing of where or
when they were made is kept in them.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from models.engine import EngineUnavailable, NetName, Precision
from models.graph import Graph
from models.spec import Codec

OPSET = 23
"""The first opset with one `Attention` operator, which compilers fuse without having to find the pattern."""

RECIPE = 2
"""Raise it when the same net exports to another graph: plans of the old graph are then no longer found."""

EXTRA = "gridit-serve[tensorrt] or gridit-serve[tensorrt-rtx]"

_ELSEWHERE = ("t_embedder.", "y_embedder.", "adaLN_modulation.")
"""Parts of a net that make the modulation, and so are not in the graph."""
_MOST_ROWS = 1024


def export(graph: Graph, *, precision: Precision) -> bytes:
    """A serialized ONNX model in `precision.dtype`: where scales are needed, that in which they are put.

    `EngineUnavailable` without the exporter's packages.
    """
    _require("onnx", "onnxscript")
    rows = 1 if isinstance(graph.net, Codec) else 2
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            _Cast(graph.module, precision).eval(),
            graph.example(rows),
            dynamo=True,
            optimize=True,
            opset_version=OPSET,
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            dynamic_shapes=_free_batch(graph),
            verbose=False,
        )
    assert program is not None
    return _bare(program.model_proto)


def source_digest(graph: Graph, *, precision: Precision) -> str:
    """What `export` would be given, as a SHA-256: architecture, exported weights, precision, recipe. No export."""
    ports = [(port.name, port.shape) for port in (*graph.inputs, *graph.outputs)]
    digest = hashlib.sha256(f"{RECIPE} {OPSET} {precision} {graph.part} {ports}".encode())
    for name, module in graph.module.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str)}
        digest.update(f"{name} {type(module).__name__} {sorted(plain.items())}".encode())
    for name, tensor in sorted(graph.module.state_dict().items()):
        if not any(part in name for part in _ELSEWHERE):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def carried(precision: Precision, net: NetName) -> Precision:
    """What a net computes in where `precision` is asked for: half an autoencoder is never quantised."""
    if not isinstance(net, Codec):
        return precision
    return {Precision.FP8: Precision.FP16, Precision.INT8: Precision.FP32}.get(precision, precision)


def verifiable(precision: Precision) -> bool:
    """Whether ONNX Runtime is here and can run what is exported: its CPU kernels know no bfloat16."""
    return precision is not Precision.BF16 and find_spec("onnxruntime") is not None


def parity(onnx: bytes, graph: Graph, *, rows: int = 3, seed: int = 0) -> float:
    """|ONNX Runtime - torch in float32| / |torch| over random rows, of the worst output. No bfloat16, see `verifiable`.

    Half an autoencoder is tried with one row whatever `rows`. `EngineUnavailable` without onnxruntime.
    """
    _require("onnxruntime")
    import onnxruntime

    inputs = graph.example(1 if isinstance(graph.net, Codec) else rows, seed=seed)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    feeds = {port.name: tensor.numpy() for port, tensor in zip(graph.inputs, inputs, strict=True)}
    found = session.run([port.name for port in graph.outputs], feeds)
    gaps = [
        torch.dist(torch.from_numpy(out), right) / right.norm()
        for out, right in zip(found, graph.answer(inputs), strict=True)
    ]
    return float(torch.stack(gaps).max())


class _Cast(nn.Module):
    """What is exported, with its casts: float32 in, float32 out."""

    def __init__(self, module: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype
        self.inner = copy.deepcopy(module).to(self.dtype)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(out.float() for out in self.inner(*(tensor.to(self.dtype) for tensor in inputs)))


def _free_batch(graph: Graph) -> tuple[tuple[dict[int, Any], ...]] | None:
    """For the exporter: the arguments are one variadic one. None for half an autoencoder."""
    if isinstance(graph.net, Codec):
        return None
    batch = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    return (tuple({0: batch} for _ in graph.inputs),)


def _require(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise EngineUnavailable(f"{', '.join(missing)} not installed; install {EXTRA}")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own deprecations and of packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=".*axis name.*", category=UserWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _bare(model: Any) -> bytes:
    """Serialize a `ModelProto` without stack traces, file names and the exporter's notes."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        for field in ("metadata_props", "doc_string"):
            part.ClearField(field)
    return bytes(model.SerializeToString(deterministic=True))
