"""The peers as contenders: a DiT of a bundle, run by others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.bench import peers
from models.bench.opening import Place
from models.bench.peers import Peer
from models.engine import Precision
from models.graph import Graph
from models.nn.dit import DiT
from models.spec import Stage


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


def make(peer: Peer, place: Place, graph: Graph, precision: Precision) -> OfPeer:
    """The peer with the weights of the bundle's net. Whatever it raises, it cannot run here."""
    net = place.bundle.net(Stage(place.net)).to(place.device)
    match peer:
        case Peer.DIFFUSERS:
            return _diffusers(net, place)
        case Peer.COMPILED:
            return _compiled(net, place, graph, precision)
        case Peer.RELEASED:
            return _released(net, place)


def _diffusers(net: DiT, place: Place) -> OfPeer:
    theirs, twin = peers.diffusers_net(net).to(place.device), peers.as_in_diffusers(net)

    def run(rows: int) -> Callable[[], Tensor]:
        question = peers.asked(net, rows=rows, device=place.device)
        return lambda: peers.answer_of_diffusers(theirs, question)

    def oracle(rows: int) -> Tensor:
        question = peers.asked(net, rows=rows, device=place.device)
        answer: Tensor = twin(question.x, question.times, question.labels)
        return answer

    return OfPeer(Peer.DIFFUSERS, precision=Precision.FP32, run=run, oracle=oracle, rows=place.buckets)


def _compiled(net: DiT, place: Place, graph: Graph, precision: Precision) -> OfPeer:
    call = peers.compiled(net, precision)

    def run(rows: int) -> Callable[[], Tensor]:
        x, modulation = (part.to(place.device, precision.dtype) for part in graph.example(rows, seed=rows)[:2])
        return lambda: call(x, modulation)

    def oracle(rows: int) -> Tensor:
        return graph.answer(graph.example(rows, seed=rows))[0]

    return OfPeer(Peer.COMPILED, precision=precision, run=run, oracle=oracle, rows=place.buckets)


def _released(net: DiT, place: Place) -> OfPeer:
    def run(rows: int) -> Callable[[], Tensor]:
        question = peers.asked(net, rows=rows, device=place.device)
        null = net.spec.classes
        return lambda: peers.released(net, question.x, time=500.0 / net.spec.time_scale, label=null)

    def oracle(rows: int) -> Tensor:
        question = peers.asked(net, rows=rows, device=place.device)
        answer: Tensor = net(question.x, question.times, torch.full_like(question.labels, net.spec.classes))
        return answer

    return OfPeer(Peer.RELEASED, precision=Precision.FP32, run=run, oracle=oracle, rows=(1,))
