"""Bundles, and the engines that serve their nets: one generation of an engine after the other.

Another engine serves only jobs that begin after it came; those in hand go on with theirs, for its numbers may differ in
the last bits. An engine whose last job has left is closed. Nothing is chosen or built here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from models.bundle import Bundle
from models.engine import NetName
from models.evaluator import Answering
from models.spec import Stage
from workers.contracts.catalogue import CatalogueEntry, EngineInfo
from workers.offering import engines_of, entry_of
from workers.scheduler import Depth, Net

Generations = Mapping[NetName, int]
"""Which engine of each net a job is served by."""


class Serving:
    """What a runner runs. Not thread safe."""

    def __init__(
        self, bundles: Mapping[str, Bundle], nets: Mapping[Net, Answering], *, engines: Mapping[Net, EngineInfo]
    ) -> None:
        """`bundles` by name, the default first; `nets` prepared, all of the first generation; `engines`: of them."""
        self.bundles = dict(bundles)
        self._nets = dict(nets)
        self._infos = dict(engines)
        self._newest = {(net.bundle, net.part): net.generation for net in nets}
        self._device = next(iter(nets.values())).device
        self.buckets: dict[Net, Sequence[int]] = {}
        """Rows that a net can be run with, ascending."""
        for net in nets:
            self._note_buckets(net)

    @property
    def device(self) -> torch.device:
        """Where all of them work."""
        return self._device

    def __getitem__(self, net: Net) -> Answering:
        """The engine of a net, to whatever depth, of that generation."""
        return self._nets[_whole(net)]

    def parts(self, bundle: str) -> tuple[NetName, ...]:
        """The nets of a bundle."""
        return tuple(part for name, part in self._newest if name == bundle)

    def newest(self, bundle: str, part: NetName) -> Net:
        """The net by the engine that serves jobs that begin now."""
        return Net(bundle, part, generation=self._newest[bundle, part])

    def generations(self, bundle: str) -> Generations:
        """Of a job that begins now."""
        return {part: self._newest[bundle, part] for part in self.parts(bundle)}

    def info(self, net: Net) -> EngineInfo | None:
        """What is told of an engine; nothing of an autoencoder's that has none of its own."""
        return self._infos.get(net)

    def tell(self, net: Net, info: EngineInfo) -> None:
        """Tell something else of an engine."""
        self._infos[net] = info

    def swap(self, bundle: str, part: NetName, *, answering: Answering, info: EngineInfo) -> Net:
        """From now on jobs that begin are served by this prepared engine."""
        net = Net(bundle, part, generation=self._newest[bundle, part] + 1)
        self._nets[net], self._infos[net] = answering, info
        self._newest[bundle, part] = net.generation
        self._note_buckets(net)
        return net

    def retire(self, in_use: Iterable[tuple[str, Generations]]) -> None:
        """Close engines that serve neither jobs that begin nor those in hand: (bundle, generations) of each."""
        needed = {Net(name, part, generation=number) for name, of in in_use for part, number in of.items()}
        for net in [net for net in self._nets if not self._serves(net, needed)]:
            self._nets.pop(net).close()
            self._infos.pop(net, None)
            for depth in Depth:
                del self.buckets[replace(net, depth=depth)]

    def caches(self, bundle: str) -> bool:
        """Whether every net of the bundle can reuse features, for a job that begins now."""
        stages = [part for part in self.parts(bundle) if isinstance(part, Stage)]
        return all(self[self.newest(bundle, stage)].caches for stage in stages)

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        """What is served, and by which engines; the first bundle is the default model."""
        default = next(iter(self.bundles))
        return tuple(
            entry_of(bundle, self._told(name), default=default, caches=self.caches(name))
            for name, bundle in self.bundles.items()
        )

    def close(self) -> None:
        """Close every engine."""
        for answering in self._nets.values():
            answering.close()

    def _told(self, bundle: str) -> dict[str, EngineInfo]:
        newest = [self.newest(bundle, part) for part in self.parts(bundle)]
        return engines_of({net.part: self._infos[net] for net in newest if net in self._infos})

    def _serves(self, net: Net, needed: Collection[Net]) -> bool:
        return net in needed or net.generation == self._newest[net.bundle, net.part]

    def _note_buckets(self, net: Net) -> None:
        for depth in Depth:
            self.buckets[replace(net, depth=depth)] = self._nets[net].buckets


def _whole(net: Net) -> Net:
    return net if net.depth is Depth.WHOLE else replace(net, depth=Depth.WHOLE)
