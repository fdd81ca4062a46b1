"""Whatever can run a net here, with one face: our engines in every precision, and the peers they are compared with.

What cannot run is told with its reason and left out, since a benchmark of what is there is worth more than none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from models import parity
from models.bench import rivals
from models.bench.opening import CANNOT, TORCH, UNJUDGED, Place, first_line, open_engine, open_unjudged, plain
from models.bench.peers import Peer
from models.bench.report import NotRun
from models.engine import Engine, Precision, Rows
from models.graph import Graph
from models.spec import Stage


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be compared on one net."""

    place: Place
    graph: Graph
    engines: tuple[str, ...]
    precisions: tuple[Precision, ...]
    peers: tuple[Peer, ...]


class Contender(Protocol):
    """One way to run one net."""

    name: str
    precision: Precision

    def buckets(self) -> tuple[int, ...]:
        """Rows that it can be asked for."""

    def ready(self, rows: int) -> Callable[[], object]:
        """One run of so many rows, whose inputs are made now; run once already."""

    def error(self) -> float:
        """|difference| / |torch in float32|."""

    def close(self) -> None:
        """Give memory back."""


class OfEngine:
    """An engine of ours."""

    def __init__(self, engine: Engine, graph: Graph, *, name: str) -> None:
        """The engine is prepared already."""
        self.engine, self.graph, self.name, self.precision = engine, graph, name, engine.precision

    def buckets(self) -> tuple[int, ...]:
        """The engine's."""
        return self.engine.buckets

    def ready(self, rows: int) -> Callable[[], object]:
        """Modulation rows are inputs here, since they are made once."""
        inputs = [tensor.to(self.engine.device) for tensor in self.graph.example(rows, seed=rows)]
        batch = Rows(*inputs[:2])
        self.engine.run(batch)
        return lambda: self.engine.run(batch)

    def error(self) -> float:
        """As the parity gate has it."""
        return parity.gap(self.engine, self.graph)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def gather(wanted: Wanted) -> Generator[str, None, tuple[list[Contender], list[NotRun]]]:
    """Every contender, prepared, and what is not among them; yields what is being made ready."""
    ready: list[Contender] = []
    missing: list[NotRun] = []
    for title, make in _candidates(wanted):
        yield title
        try:
            ready.append(make())
        except CANNOT as error:
            missing.append(NotRun(what=title, why=first_line(error)))
    return ready, missing


def _candidates(wanted: Wanted) -> Iterator[tuple[str, Callable[[], Contender]]]:
    for name in wanted.engines:
        for precision in wanted.precisions:
            if name == TORCH and precision not in plain(wanted.place.device):
                continue
            yield f"{name} {precision}", partial(_of_engine, name, wanted, precision)
    if isinstance(wanted.place.net, Stage):
        yield from _peer_candidates(wanted)


def _of_engine(name: str, wanted: Wanted, precision: Precision) -> Contender:
    """Where a quantised net cannot be judged, it is run all the same, under a name that says so."""
    from models.quantise.quality import NoReference

    try:
        return OfEngine(open_engine(name, wanted.place, precision), wanted.graph, name=name)
    except NoReference:
        if (name, precision) != UNJUDGED or not isinstance(wanted.place.net, Stage):
            raise
        return OfEngine(open_unjudged(wanted.place), wanted.graph, name=f"{name}, not judged,")


def _peer_candidates(wanted: Wanted) -> Iterator[tuple[str, Callable[[], Contender]]]:
    for peer in wanted.peers:
        for precision in plain(wanted.place.device) if peer is Peer.COMPILED else (Precision.FP32,):
            if precision in wanted.precisions:
                yield f"{peer} {precision}", partial(rivals.make, peer, wanted.place, wanted.graph, precision)
