"""Exported graphs of the tiny nets, made once a process: an export takes seconds."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest

from models.compiling.export import export
from models.engine import Precision
from models.graph import Graph, Part, graphs_of
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


def graph(stage: Stage, part: Part = Part.WHOLE) -> Graph:
    """One of its graphs."""
    return next(graph for graph in graphs_of(stage, net(stage)) if graph.part is part)


def exported(stage: Stage, precision: Precision, part: Part = Part.WHOLE) -> bytes:
    """Its ONNX."""
    return _exported(stage, precision, part)


@cache
def _exported(stage: Stage, precision: Precision, part: Part) -> bytes:
    return export(graph(stage, part), precision=precision)
