"""What a compiled engine does on this machine: how far it is from torch, and its time beside torch's, in one run.

The two engines take turns, so what else the machine does falls on both. Time is bounded: a large net on a CPU is
measured in fewer buckets, least rows first, and in fewer rounds. The figures are facts for `models.engines.select`;
comparisons to be published are `models.bench`'s.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from models import devices, parity
from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache, Measured, Record
from models.engine import CachingEngine, Engine, NetName, Precision, Rows
from models.engines import create, plain_precision
from models.graph import DEEP, MODULATION, Graph, Part, X, graphs

ROUNDS = 5
BUDGET_SECONDS = 5.0
"""For one graph, beyond its parity and its first bucket's first round."""
_PAUSE_SECONDS = 0.003
"""Between runs on a CPU: threads that have nothing left to do go on looking for work for a while."""


def measured(
    bundle: Bundle,
    net: NetName,
    *,
    engine: str,
    precision: Precision,
    cache: EngineCache,
    records: Sequence[Record],
    device: torch.device | None = None,
    buckets: Sequence[int] | None = None,
) -> tuple[Record, ...]:
    """The records of a net's plans with what was measured here, in the cache as well.

    `EngineUnavailable` if the plans do not open.
    """
    place = devices.use() if device is None else device
    tried = create(engine, bundle=bundle, net=net, precision=precision, buckets=buckets, device=place, cache=cache)
    against = create("torch", bundle=bundle, net=net, precision=plain_precision(place), buckets=buckets, device=place)
    by_name = {graph.name: graph for graph in graphs(bundle, net)}
    try:
        tried.prepare()
        against.prepare()
        return tuple(
            cache.amend(record.model_copy(update={"measured": measure(tried, against, by_name[record.graph])}))
            for record in records
        )
    finally:
        tried.close()
        against.close()


def measure(
    engine: Engine, against: Engine, graph: Graph, *, rounds: int = ROUNDS, budget: float = BUDGET_SECONDS
) -> Measured:
    """Parity and medians of two prepared engines for one graph, in at most about `budget` seconds of rounds."""
    gap = parity.gap(engine, graph)
    seconds: dict[int, float] = {}
    torch_seconds: dict[int, float] = {}
    end = time.monotonic() + budget
    for rows in engine.buckets:
        inputs = [tensor.to(engine.device) for tensor in graph.example(rows)]
        first = _round(engine, against, inputs, graph)
        fitting = int((end - time.monotonic()) / sum(first))
        if seconds and fitting < 1:
            break
        times = [_round(engine, against, inputs, graph) for _ in range(max(1, min(rounds, fitting)))]
        seconds[rows], torch_seconds[rows] = (statistics.median(column) for column in zip(*times, strict=True))
    return Measured(
        device=devices.described(engine.device),
        parity=gap,
        seconds=seconds,
        torch_precision=against.precision,
        torch_seconds=torch_seconds,
    )


def _round(engine: Engine, against: Engine, inputs: Sequence[torch.Tensor], graph: Graph) -> tuple[float, float]:
    return _seconds(engine, inputs, graph), _seconds(against, inputs, graph)


def _seconds(engine: Engine, inputs: Sequence[torch.Tensor], graph: Graph) -> float:
    """One run, to its end on the device."""
    there = {port.name: tensor for port, tensor in zip(graph.inputs, inputs, strict=True)}
    rows = Rows(there[X], there.get(MODULATION))
    _wait(engine.device)
    started = time.perf_counter()
    if graph.part is Part.REUSING:
        assert isinstance(engine, CachingEngine), "only an engine that reuses features has such a graph"
        engine.run_reusing(rows, there[DEEP])
    else:
        engine.run(rows)
    if engine.device.type == devices.GPU:
        torch.cuda.synchronize(engine.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    """Until what ran before is over."""
    if device.type == devices.GPU:
        torch.cuda.synchronize(device)
    else:
        time.sleep(_PAUSE_SECONDS)
