"""Units as generators of network evaluations.

A unit yields `Evaluate`, is sent the net's output, and returns its result. It does tensor arithmetic only: no reading
back, encoding, files or clock, so that whoever drives it may keep everything on the device and pack the rows of many
units into one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from models import grid, samplers
from models.noise import NoiseKey, NoiseSource
from models.plan import Request, Unit, UnitKind
from models.samplers import Estimate
from models.schedules import Level, denoised, levels
from models.spec import BundleSpec, KnownRows, NetSpec, Prediction, Stage


@dataclass(frozen=True, slots=True)
class Evaluate:
    """n rows of one net, each at its own time and label."""

    net: Stage
    x: Tensor
    """(n, C, S, S) float32."""
    times: tuple[float, ...]
    """Times of the schedule, one a row."""
    labels: tuple[int, ...]


UnitRun = Generator[Evaluate, Tensor, Tensor]
"""Yields evaluations, is sent (n, out, S, S), returns the result."""


def start(
    unit: Unit, *, spec: BundleSpec, request: Request, results: Mapping[str, Tensor], noise: NoiseSource
) -> UnitRun:
    """The generator of a unit whose required `results` (by unit key) exist.

    Results: a coarse unit's is its grid (C, K*h, K*w), a refine unit's its frames (n, C, H, W), both in [-1, 1].
    """
    if unit.kind is UnitKind.COARSE:
        previous = results[unit.requires[0]] if unit.requires else None
        return _coarse(unit, spec=spec, request=request, previous=previous, noise=noise)
    return _refine(unit, spec=spec, request=request, coarse=results[unit.requires[0]], noise=noise)


def coarse_frames(unit: Unit, result: Tensor, *, spec: BundleSpec) -> Tensor:
    """The frames that are new in a coarse unit's grid: (C, K*h, K*w) -> (len(unit.frames), C, h, w)."""
    return _frames_of(result, unit.index, unit.frames, spec)


def _coarse(unit: Unit, *, spec: BundleSpec, request: Request, previous: Tensor | None, noise: NoiseSource) -> UnitRun:
    net = spec.nets[Stage.COARSE]
    shape = (1, net.in_channels, net.input_size, net.input_size)
    draw = partial(_draw, noise, unit.key, shape)
    known = None
    if previous is not None:
        known = _Known.after(previous, spec=spec, noise=partial(_draw, noise, f"known/{unit.key}", shape, 0))
    sampling = samplers.load(request.sampler)(
        draw(0), levels=levels(net.schedule, request.coarse_steps), noise=lambda step: draw(step + 1)
    )
    query = next(sampling)
    while True:
        x = query.x if known is None else known.impose(query.x, query.level)
        clean = yield from _guided(net, x, query.level, request)
        try:
            query = sampling.send(Estimate(clean if known is None else known.impose_clean(clean)))
        except StopIteration as end:
            drawn: Tensor = end.value
            break
    return (drawn if known is None else known.impose_clean(drawn))[0].clamp(-1, 1)


def _guided(net: NetSpec, x: Tensor, level: Level, request: Request) -> Generator[Evaluate, Tensor, Tensor]:
    """The clean image for one row, with classifier-free guidance where it is not a no-op."""
    null = net.classes
    label = null if request.label is None or not net.classes else request.label
    if label == null or request.guidance_scale == 1:
        out = yield Evaluate(Stage.COARSE, x, (level.time,), (label,))
    else:
        both = yield Evaluate(Stage.COARSE, x.expand(2, -1, -1, -1), (level.time,) * 2, (label, null))
        out = both[1:] + request.guidance_scale * (both[:1] - both[1:])
    return denoised(net.prediction, x, out[:, : x.shape[1]], level)


def _refine(unit: Unit, *, spec: BundleSpec, request: Request, coarse: Tensor, noise: NoiseSource) -> UnitRun:
    net = spec.nets[Stage.REFINE]
    label = net.classes if request.label is None or not net.classes else request.label
    frames = _frames_of(coarse, unit.index, unit.frames, spec)
    low = F.interpolate(frames, size=net.input_size, mode="bicubic", align_corners=False).clamp(-1, 1)
    rows, channels = low.shape[:2]
    # One noise for every frame of the job: what the net makes up stays put from frame to frame.
    start_noise = _draw(noise, "refine", (1, channels, net.input_size, net.input_size), 0)
    sampling = samplers.load("euler")(
        start_noise.expand(rows, -1, -1, -1),
        levels=levels(net.schedule, request.refine_steps),
        noise=lambda step: _draw(noise, "refine", tuple(start_noise.shape), step + 1),
    )
    query = next(sampling)
    while True:
        times, labels = (query.level.time,) * rows, (label,) * rows
        out = yield Evaluate(Stage.REFINE, torch.cat([query.x, low], dim=1), times, labels)
        clean = denoised(net.prediction, query.x, out[:, :channels], query.level)
        try:
            query = sampling.send(Estimate(low + clean if net.prediction is Prediction.RESIDUAL else clean))
        except StopIteration as end:
            refined: Tensor = end.value
            return refined.clamp(-1, 1)


@dataclass(frozen=True, slots=True)
class _Known:
    """Rows of a grid that are already drawn."""

    mask: Tensor
    """(1, 1, S, 1), true where known."""
    clean: Tensor
    """(1, C, S, S), anything where unknown."""
    noise: Tensor | None
    """One fixed noise per known row; a clean prefix has none."""

    @classmethod
    def after(cls, previous: Tensor, *, spec: BundleSpec, noise: Callable[[], Tensor]) -> _Known:
        """The last rows of `previous` (C, S, S) become the first ones."""
        side, rows = previous.shape[-1], spec.overlap_rows * spec.coarse_size
        mask = (torch.arange(side, device=previous.device) < rows)[None, None, :, None]
        drawn = noise() if spec.known_rows is KnownRows.REPLACEMENT else None
        return cls(mask, previous.roll(rows, dims=1)[None], drawn)

    def impose(self, x: Tensor, level: Level) -> Tensor:
        """`x` as the net is to see it at this level."""
        if self.noise is None:
            return self.impose_clean(x)
        return torch.where(self.mask, level.alpha * self.clean + level.sigma * self.noise, x)

    def impose_clean(self, x: Tensor) -> Tensor:
        """The known rows themselves, and `x` elsewhere."""
        return torch.where(self.mask, self.clean, x)


def _frames_of(coarse: Tensor, index: int, frames: range, spec: BundleSpec) -> Tensor:
    first = grid.first_frame(index, k=spec.grid, overlap=spec.overlap_rows)
    tiles = grid.unpack(coarse[None], k=spec.grid)[0]
    return tiles[frames.start - first : frames.stop - first]


def _draw(noise: NoiseSource, stream: str, shape: tuple[int, ...], step: int) -> Tensor:
    return noise(NoiseKey(stream, step, shape))
