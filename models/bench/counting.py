"""How often a job runs each net, counted by driving its own units over frames of two pixels with nets that say zero.

Units never look at a value, and what they ask for does not depend on the size of frames: no count here can differ from
what a job really asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models import alone
from models.bench import driving, released
from models.noise import NoiseKey
from models.plan import Request, UnitKind, plan
from models.spec import BundleSpec, Codec, Stage
from models.units.asking import Evaluate

CPU = torch.device("cpu")
FRAME, REFINED = 2, 3
"""Sides of the frames that are counted with; a grid of the former is no frame of the latter."""


@dataclass(slots=True)
class Tally:
    """What was asked for."""

    runs: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(net, rows of the bucket) -> how often."""
    rows: Counter[str] = field(default_factory=Counter)
    """Without padding, by net."""
    moments: dict[str, set[tuple[float, int]]] = field(default_factory=dict)
    """By net: the different (time, label)."""

    def of_net(self) -> dict[str, int]:
        """Runs by net."""
        found: Counter[str] = Counter()
        for (net, _), count in self.runs.items():
            found[net] += count
        return dict(found)


class Counting:
    """A net that only counts: packed into buckets, as ours are run."""

    device = CPU
    caches = True

    def __init__(self, spec: BundleSpec, tally: Tally, *, buckets: tuple[int, ...]) -> None:
        """`spec` says what shape answers have."""
        self.spec, self.tally, self.buckets = spec, tally, buckets

    @property
    def largest(self) -> int:
        """The last bucket."""
        return self.buckets[-1]

    def bucket(self, rows: int) -> int:
        """The smallest that holds them."""
        return next(size for size in self.buckets if size >= rows)

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """Nothing but shapes."""
        self.count(parts)
        return tuple(_blank(part, self.spec) for part in parts)

    def count(self, parts: Sequence[Evaluate]) -> None:
        """One run of all parts; halves of an autoencoder run row by row."""
        rows, name = sum(len(part.times) for part in parts), self.label(parts[0])
        alone_ = isinstance(parts[0].net, Codec)
        self.tally.runs[name, 1 if alone_ else self.bucket(rows)] += rows if alone_ else 1
        self.tally.rows[name] += rows
        moments = self.tally.moments.setdefault(name, set())
        moments.update(moment for part in parts for moment in zip(part.times, part.labels, strict=True))

    def label(self, part: Evaluate) -> str:
        """ "coarse"; "decoder 32" where it would be given latents of that side."""
        if not isinstance(part.net, Codec):
            return str(part.net)
        whole = part.x.shape[-1] == FRAME * self.spec.grid
        side = self.spec.grid * self.spec.coarse_size if whole else self.spec.refined_size
        return f"{part.net} {side if part.net is Codec.ENCODER else side // self.spec.downsample}"

    def close(self) -> None:
        """There is nothing to close."""


class CountingReleased(Counting):
    """The same as the released loop runs it."""

    def count(self, parts: Sequence[Evaluate]) -> None:
        """Row by row, each twice; halves of an autoencoder once."""
        for part in parts:
            name = self.label(part)
            if isinstance(part.net, Codec):
                self.tally.runs[name, 1] += len(part.times)
            else:
                self.tally.runs[name, released.ROWS] += released.runs(part)
            self.tally.rows[name] += len(part.times)


def packed(spec: BundleSpec, request: Request, *, buckets: tuple[int, ...]) -> Tally:
    """Of `driving.job` with engines of these buckets."""
    tally = Tally()
    sizes = {net: buckets if isinstance(net, Stage) else (released.WHOLE,) for net in (*Stage, *Codec)}
    nets = {net: Counting(spec, tally, buckets=sizes[net]) for net in (*Stage, *Codec)}
    for _ in driving.job(_small(spec), request, nets=nets, noise=_noise):
        pass
    return tally


def as_released(spec: BundleSpec, request: Request) -> Tally:
    """Of the released loop, with what it decodes for its own records."""
    tally = Tally()
    nets = {net: CountingReleased(spec, tally, buckets=(released.WHOLE,)) for net in (*Stage, *Codec)}
    for _ in alone.run(_small(spec), request, nets=nets, noise=_noise):
        pass
    if spec.autoencoder is not None:
        side = spec.nets[Stage.COARSE].input_size
        tally.runs[f"{Codec.DECODER} {side}", 1] += released.DEBUG_DECODES * grids(spec, request)
    return tally


def grids(spec: BundleSpec, request: Request) -> int:
    """How many a job draws."""
    return sum(unit.kind in (UnitKind.COARSE, UnitKind.INTERPOLATE) for unit in plan(spec, request))


def _small(spec: BundleSpec) -> BundleSpec:
    """The same with tiny frames; an autoencoder, if any, that makes nothing smaller."""
    sides = {Stage.COARSE: spec.grid * FRAME, Stage.REFINE: REFINED if Stage.REFINE in spec.nets else FRAME}
    nets = {stage: net.model_copy(update={"input_size": sides[stage]}) for stage, net in spec.nets.items()}
    vae = None if spec.autoencoder is None else spec.autoencoder.model_copy(update={"downsample": 1})
    sizes = {"coarse_size": FRAME, "refined_size": sides[Stage.REFINE]}
    return spec.model_copy(update={"nets": nets, "autoencoder": vae, **sizes})


def _noise(key: NoiseKey) -> Tensor:
    return torch.zeros(key.shape)


def _blank(part: Evaluate, spec: BundleSpec) -> Tensor:
    rows, side = len(part.times), part.x.shape[-1]
    match part.net:
        case Codec.ENCODER:
            return torch.zeros(rows, 2 * spec.net_channels, side, side)
        case Codec.DECODER:
            return torch.zeros(rows, spec.channels, side, side)
        case stage:
            return torch.zeros(rows, spec.nets[stage].out_channels, side, side)
