"""Exported graphs of the tiny nets, made once a process: an export takes seconds."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest

from models.engine import Precision
from models.export import export
from models.nn.dit import DiT
from models.spec import Stage
from tests.tiny import awake, tiny_net

needs_export = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript and onnxruntime come with the extra tensorrt-rtx, which is not installed",
)


@cache
def net(stage: Stage) -> DiT:
    """A tiny net, awake."""
    return awake(DiT(tiny_net(stage=stage)))


@cache
def graph(stage: Stage, precision: Precision) -> bytes:
    """Its ONNX."""
    return export(net(stage), precision=precision)
