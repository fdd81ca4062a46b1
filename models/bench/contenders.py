"""Whatever can run a net here, with one face: our engines in every precision, and the peers they are compared with.

Engines that need a plan are given one by `models.compile`, once: the engine cache keeps it. What cannot run is told
with its reason and left out, since a benchmark of what is there is worth more than none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from models import devices, engines, parity
from models.bench import peers
from models.bench.peers import Peer
from models.bench.report import NotRun
from models.bundle import Bundle
from models.engine import Engine, EngineUnavailable, NetName, Precision, Rows
from models.graph import Graph, Part
from models.nn.dit import DiT
from models.spec import BundleSpec, Codec, Stage

TORCH = "torch"
CANNOT = Exception
"""Whatever keeps one contender from running, whoever raises it: it is told, and the others are measured."""


@dataclass(frozen=True, slots=True)
class Place:
    """A net to be run, and how."""

    bundle: Bundle
    net: NetName
    buckets: tuple[int, ...]
    device: torch.device


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

    def __init__(self, engine: Engine, graph: Graph) -> None:
        """The engine is prepared already."""
        self.engine, self.graph = engine, graph
        self.name, self.precision = engine.name, engine.precision

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


class OfPeer:
    """Somebody else's way to run a DiT, float32 on the CPU or in a precision of its own."""

    def __init__(
        self,
        peer: Peer,
        *,
        precision: Precision,
        run: Callable[[int], Callable[[], Tensor]],
        oracle: Callable[[int], Tensor],
        rows: tuple[int, ...],
    ) -> None:
        """`run(n)` prepares n rows; `oracle(n)` is what they should give."""
        self.name, self.precision = peer.value, precision
        self._run, self._oracle, self._rows = run, oracle, rows

    def buckets(self) -> tuple[int, ...]:
        """As asked."""
        return self._rows

    @torch.inference_mode()
    def ready(self, rows: int) -> Callable[[], object]:
        """With everything that it computes at each step."""
        run = self._run(rows)
        run()
        return torch.inference_mode()(run)

    @torch.inference_mode()
    def error(self) -> float:
        """On the smallest bucket."""
        rows = self._rows[0]
        found, expected = self._run(rows)().float().cpu(), self._oracle(rows).float().cpu()
        return float(torch.dist(found, expected) / expected.norm())

    def close(self) -> None:
        """Let the weights go."""
        del self._run, self._oracle


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


def first_line(error: Exception) -> str:
    """Enough of an error for a table."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def nets_of(spec: BundleSpec) -> tuple[NetName, ...]:
    """All that a bundle has."""
    codecs: tuple[NetName, ...] = tuple(Codec) if spec.autoencoder else ()
    return (*spec.stages, *codecs)


def plain(device: torch.device) -> tuple[Precision, ...]:
    """What torch itself runs nets in on a device."""
    if device.type == devices.GPU:
        return Precision.FP32, Precision.BF16, Precision.FP16
    return Precision.FP32, Precision.BF16


def open_engine(name: str, place: Place, precision: Precision) -> Engine:
    """The engine, prepared, its plan made first where there is none. Errors: those of `CANNOT`."""
    create = partial(
        engines.create,
        name,
        bundle=place.bundle,
        net=place.net,
        precision=precision,
        buckets=place.buckets,
        device=place.device,
    )
    try:
        engine = create()
    except EngineUnavailable:
        if name == TORCH:
            raise
        _make_plan(name, place, precision)  # which says what keeps it, if it is not the plan
        engine = create()
    engine.prepare()
    return engine


def _make_plan(name: str, place: Place, precision: Precision) -> None:
    from models.compile import compile_bundle

    for _ in compile_bundle(place.bundle.path, engine=name, precision=precision, buckets=place.buckets):
        pass


def _candidates(wanted: Wanted) -> Iterator[tuple[str, Callable[[], Contender]]]:
    for name in wanted.engines:
        for precision in wanted.precisions:
            if name == TORCH and precision not in plain(wanted.place.device):
                continue
            yield f"{name} {precision}", partial(_of_engine, name, wanted, precision)
    if isinstance(wanted.place.net, Stage) and wanted.graph.part is Part.WHOLE:
        yield from _peer_candidates(wanted, wanted.place.net)


def _of_engine(name: str, wanted: Wanted, precision: Precision) -> Contender:
    return OfEngine(open_engine(name, wanted.place, precision), wanted.graph)


def _peer_candidates(wanted: Wanted, stage: Stage) -> Iterator[tuple[str, Callable[[], Contender]]]:
    for peer in wanted.peers:
        for precision in plain(wanted.place.device) if peer is Peer.COMPILED else (Precision.FP32,):
            if precision in wanted.precisions:
                title = f"{peer} {precision}"
                yield title, partial(_of_peer, peer, wanted, stage, precision)


def _of_peer(peer: Peer, wanted: Wanted, stage: Stage, precision: Precision) -> Contender:
    net = wanted.place.bundle.net(stage).to(wanted.place.device)
    match peer:
        case Peer.DIFFUSERS:
            return _diffusers(net, wanted)
        case Peer.COMPILED:
            return _compiled(net, wanted, precision)
        case Peer.RELEASED:
            return _released(net, wanted)


def _diffusers(net: DiT, wanted: Wanted) -> Contender:
    theirs, twin = peers.diffusers_net(net).to(wanted.place.device), peers.as_in_diffusers(net)

    def run(rows: int) -> Callable[[], Tensor]:
        question = peers.asked(net, rows=rows, device=wanted.place.device)
        return lambda: peers.answer_of_diffusers(theirs, question)

    def oracle(rows: int) -> Tensor:
        question = peers.asked(net, rows=rows, device=wanted.place.device)
        answer: Tensor = twin(question.x, question.times, question.labels)
        return answer

    return OfPeer(Peer.DIFFUSERS, precision=Precision.FP32, run=run, oracle=oracle, rows=wanted.place.buckets)


def _compiled(net: DiT, wanted: Wanted, precision: Precision) -> Contender:
    call = peers.compiled(net, precision)

    def run(rows: int) -> Callable[[], Tensor]:
        x, modulation = (
            part.to(wanted.place.device, precision.dtype) for part in wanted.graph.example(rows, seed=rows)[:2]
        )
        return lambda: call(x, modulation)

    def oracle(rows: int) -> Tensor:
        return wanted.graph.answer(wanted.graph.example(rows, seed=rows))[0]

    return OfPeer(Peer.COMPILED, precision=precision, run=run, oracle=oracle, rows=wanted.place.buckets)


def _released(net: DiT, wanted: Wanted) -> Contender:
    def run(rows: int) -> Callable[[], Tensor]:
        question = peers.asked(net, rows=rows, device=wanted.place.device)
        null = net.spec.classes
        return lambda: peers.released(net, question.x, time=500.0 / net.spec.time_scale, label=null)

    def oracle(rows: int) -> Tensor:
        question = peers.asked(net, rows=rows, device=wanted.place.device)
        answer: Tensor = net(question.x, question.times, torch.full_like(question.labels, net.spec.classes))
        return answer

    return OfPeer(Peer.RELEASED, precision=Precision.FP32, run=run, oracle=oracle, rows=(1,))
