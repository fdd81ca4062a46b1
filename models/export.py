"""From a net to ONNX: the half that follows the modulation, for compilers of other engines.

The graph takes images and their adaLN rows, with a free batch, and computes in the precision it was exported in;
inputs and outputs are float32 in every precision, so one buffer layout serves all engines. The bytes are the same
for the same weights: nothing of where or when they were made is kept in them.
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

from models.engine import EngineUnavailable, Precision
from models.nn.dit import DiT
from models.spec import NetSpec

X, MODULATION, OUT = "x", "modulation", "out"
"""Names of the graph's inputs and output: (n, C, S, S), (n, 6*depth + 2, D), (n, out, S, S); all float32."""

OPSET = 23
"""The first opset with one `Attention` operator, which compilers fuse without having to find the pattern."""

RECIPE = 1
"""Raise it when the same net exports to another graph: plans of the old graph are then no longer found."""

EXTRA = "gridit-serve[tensorrt] or gridit-serve[tensorrt-rtx]"

_ELSEWHERE = ("t_embedder.", "y_embedder.", "adaLN_modulation.")
"""Parts of a net that make the modulation, and so are not in the graph."""


def export(net: DiT, *, precision: Precision) -> bytes:
    """The `denoise` half as a serialized ONNX model. `EngineUnavailable` without the exporter's packages."""
    _require("onnx", "onnxscript")
    half = _Denoise(net, precision).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            half,
            example(net.spec, rows=2),
            dynamo=True,
            optimize=True,
            opset_version=OPSET,
            input_names=[X, MODULATION],
            output_names=[OUT],
            dynamic_shapes={X: {0: batch}, MODULATION: {0: batch}},
            verbose=False,
        )
    assert program is not None
    return _bare(program.model_proto)


def source_digest(net: DiT, *, precision: Precision) -> str:
    """What `export` would be given, as a SHA-256: architecture, exported weights, precision, recipe. No export."""
    spec = net.spec
    shape = (spec.input_size, spec.patch, spec.in_channels, spec.out_channels, spec.width, spec.depth, spec.heads)
    digest = hashlib.sha256(f"{RECIPE} {OPSET} {precision} {shape}".encode())
    for name, tensor in sorted(net.state_dict().items()):
        if not any(part in name for part in _ELSEWHERE):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def parity(onnx: bytes, net: DiT, *, rows: int = 3, seed: int = 0) -> float:
    """The graph in ONNX Runtime against torch in float32: |difference| / |torch| over a random batch.

    ONNX Runtime's CPU kernels know no bfloat16. `EngineUnavailable` without onnxruntime.
    """
    _require("onnxruntime")
    import onnxruntime

    x, modulation = example(net.spec, rows=rows, seed=seed)
    with torch.inference_mode():
        expected = net.float().denoise(x, modulation)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (out,) = session.run([OUT], {X: x.numpy(), MODULATION: modulation.numpy()})
    return float((torch.from_numpy(out) - expected).norm() / expected.norm())


def example(spec: NetSpec, *, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normal images (rows, C, S, S) and adaLN rows (rows, 6*depth + 2, D)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, spec.in_channels, spec.input_size, spec.input_size, generator=generator)
    return x, torch.randn(rows, 6 * spec.depth + 2, spec.width, generator=generator) / 2


class _Denoise(nn.Module):
    """The half to export, with its casts: float32 in, float32 out."""

    def __init__(self, net: DiT, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype
        self.net = copy.deepcopy(net).to(self.dtype)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        return self.net.denoise(x.to(self.dtype), modulation.to(self.dtype)).float()


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
