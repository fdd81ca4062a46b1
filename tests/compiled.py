"""Plans of tiny nets for OpenVINO, and records made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache, Measured, Profile, Quality, Recipe, Record, plan_name
from models.engine import NetName, Precision
from models.engines import openvino
from models.graph import Graph, graphs


def build(
    bundle: Bundle, net: NetName, *, precision: Precision, cache: EngineCache
) -> tuple[tuple[Graph, ...], tuple[Record, ...]]:
    """Every graph of a net and the record of its plan, which is in the cache."""
    found = graphs(bundle, net)
    for graph in found:
        for _ in openvino.compile_graph(graph, precision=precision, cache=cache, bundle="tiny"):
            pass
    return found, openvino.find(found, precision=precision, cache=cache, path=bundle.path)


def measured(*, parity: float = 1e-7, faster: float = 2.0, buckets: Sequence[int] = (1, 4)) -> Measured:
    """As if it had been `faster` than torch."""
    return Measured(
        device="cpu",
        parity=parity,
        seconds={rows: rows / faster for rows in buckets},
        torch_precision=Precision.FP32,
        torch_seconds={rows: float(rows) for rows in buckets},
    )


def quality(*, accepted: bool) -> Quality:
    """A verdict of the quality gate."""
    return Quality(accepted=accepted, unquantised={"jump": 1.0}, quantised={"jump": 1.1 if accepted else 3.0})


def record(graph: str = "coarse-whole", *, precision: Precision = Precision.FP32, **changes: Any) -> Record:
    """A record of no plan at all."""
    recipe = Recipe(
        onnx_sha256="0" * 64,
        flavour="openvino",
        version="1",
        targets=("a CPU",),
        profiles=(Profile(least=1, best=1, most=32),),
        precision=precision,
    )
    fields: dict[str, Any] = {
        "recipe": recipe,
        "source": "0" * 64,
        "bundle": "tiny",
        "net": "coarse",
        "graph": graph,
        "plan": plan_name(recipe, "1" * 64),
        "plan_sha256": "1" * 64,
        "plan_bytes": 1,
        "onnx_bytes": 1,
        "export_seconds": 0,
        "build_seconds": 0,
        "kernels": 1,
        "fused_attentions": 1,
        "depth": 1,
    }
    return Record.model_validate(fields | changes)
