"""The last gate before a compiled engine serves: it computes what torch computes, and no row depends on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from models import parity
from models.bundle import Bundle
from models.compiling.engine_record import PlanDamaged, Record
from models.engine import Engine, EngineUnavailable, NetName, Precision, Rows
from models.engines._choice import Candidate, Wanted, praise
from models.graph import MODULATION, Graph, X, graphs


class RowsDepend(EngineUnavailable):
    """A row's bits depend on how many others there are, so a job among others would not be what it is alone."""

    def __init__(self, engine: Engine, graph: Graph) -> None:
        super().__init__(f"{engine.name} {engine.precision}: rows of {graph.name} depend on the size of their batch")


class Offer(Protocol):
    """Makes the engine of one net, not yet prepared."""

    def __call__(self, name: str, /, *, precision: Precision) -> Engine: ...


@dataclass(slots=True)
class Trial:
    """What came of trying candidates."""

    opened: Engine | None = None
    reason: str = ""
    """Why it serves."""
    failures: list[str] = field(default_factory=list)
    rebuild: tuple[Wanted, ...] = ()
    """Those whose plans are not what was built."""


def first_that_opens(candidates: Sequence[Candidate], bundle: Bundle, net: NetName, offer: Offer) -> Trial:
    """Try them in this order until one passes."""
    trial = Trial()
    for candidate in candidates:
        engine: Engine | None = None
        try:
            engine = offer(candidate.engine, precision=candidate.precision)
            gap = check(engine, graphs(bundle, net)[0], candidate.whole)
        except EngineUnavailable as error:
            trial.failures.append(str(error))
            if isinstance(error.__cause__, PlanDamaged):
                trial.rebuild += ((candidate.engine, candidate.precision),)
            if engine is not None:
                engine.close()
        else:
            trial.opened, trial.reason = engine, praise(candidate, gap=gap)
            break
    return trial


@torch.inference_mode()
def check(engine: Engine, graph: Graph, record: Record) -> float:
    """Prepare an engine and try it on the whole graph in small buckets; the gap to torch. `EngineUnavailable`."""
    engine.prepare()
    recorded = record.measured.parity if record.measured else None
    gap = parity.check(engine, graph, recorded=recorded)
    if engine.device.type == "cpu" and not rows_are_independent(engine, graph):
        raise RowsDepend(engine, graph)
    return gap


def rows_are_independent(engine: Engine, graph: Graph) -> bool:
    """Whether a row alone is bit for bit what it is as the last of a bucket of up to four.

    On a GPU it need not be: there kernels are chosen for each bucket.
    """
    rows = max((size for size in engine.buckets if size <= parity.MOST_ROWS), default=1)
    inputs = dict(zip((port.name for port in graph.inputs), graph.example(rows), strict=True))
    several = _run(engine, inputs, slice(0, rows))[-1:].clone()
    return torch.equal(several, _run(engine, inputs, slice(rows - 1, rows)))


def _run(engine: Engine, inputs: dict[str, torch.Tensor], which: slice) -> torch.Tensor:
    modulation = inputs.get(MODULATION)
    return engine.run(Rows(inputs[X][which], None if modulation is None else modulation[which]))
