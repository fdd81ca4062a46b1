"""Does an engine compute what torch computes in float32? The gate that every compiled engine passes before it serves.

Inputs are random rows, so this says nothing about pictures: what quantisation does to those, the bundle's quality gate
says, and here a quantised engine need only be as near as it was when that gate accepted it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.engine import CachingEngine, Engine, EngineUnavailable, Precision, Rows
from models.graph import DEEP, MODULATION, Graph, Part, X

LIMITS = {Precision.FP32: 1e-5, Precision.FP16: 0.015, Precision.BF16: 0.015}
"""Largest |difference| / |torch|."""
MOST_ROWS = 4
TOLERATED = 1.1
"""How much farther off than at its gate a quantised engine may be."""


class ParityFailed(EngineUnavailable):
    """An engine computes something else than torch does, so it does not serve."""

    def __init__(self, engine: Engine, graph: Graph, *, gap: float, limit: float) -> None:
        super().__init__(
            f"{engine.name} {engine.precision} differs from torch by {gap:.2g} of {graph.name}'s norm, "
            f"more than {limit:.2g}"
        )


def check(engine: Engine, graph: Graph, *, recorded: float | None = None) -> float:
    """The gap between a prepared engine and torch. `ParityFailed` if it is too wide.

    `recorded`: that of a quantised engine when its quality was accepted.
    """
    found = gap(engine, graph)
    precision = engine.precision
    limit = TOLERATED * (recorded or 0.0) if precision.quantised else LIMITS[precision]
    if not found <= limit:  # so that NaN fails
        raise ParityFailed(engine, graph, gap=found, limit=limit)
    return found


def gap(engine: Engine, graph: Graph, *, seed: int = 0) -> float:
    """|engine - torch| / |torch|, the widest over the buckets of up to four rows and over the graph's outputs."""
    tried = [rows for rows in engine.buckets if rows <= MOST_ROWS] or [engine.buckets[0]]
    return max(_gap(engine, graph, rows=rows, seed=seed + rows) for rows in tried)


def answer(engine: Engine, graph: Graph, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What the engine gives for a graph's inputs by name: its outputs in the graph's order, on the CPU."""
    there = {name: tensor.to(engine.device) for name, tensor in inputs.items()}
    rows = Rows(there[X], there.get(MODULATION))
    if graph.part is Part.REUSING:
        assert isinstance(engine, CachingEngine), "the engine reuses nothing"
        return (engine.run_reusing(rows, there[DEEP]).float().cpu().clone(),)
    if len(graph.outputs) == 1 or not isinstance(engine, CachingEngine):
        return (engine.run(rows).float().cpu().clone(),)
    return tuple(out.float().cpu().clone() for out in engine.run_keeping(rows))


def _gap(engine: Engine, graph: Graph, *, rows: int, seed: int) -> float:
    inputs = graph.example(rows, seed=seed)
    found = answer(engine, graph, {port.name: tensor for port, tensor in zip(graph.inputs, inputs, strict=True)})
    expected = graph.answer(inputs)
    return max(float(torch.dist(out, right) / right.norm()) for out, right in zip(found, expected, strict=False))
