"""The sound mode: a grid drawn by any sampler, with known cells at the right level from the first call on.

Known cells are restored at the end, latents go from grid to grid as they are, each grid's noise is its own, and a grid
that came out mirrored is put right.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial

import torch
from torch import Tensor

from models import grid, samplers
from models.noise import NoiseSource
from models.plan import REFERENCE, Request, Unit, UnitKind
from models.samplers import Estimate, Query
from models.schedules import levels
from models.spec import BundleSpec, Stage
from models.units.asking import Asker, Estimating, Evaluate, UnitRun, draw, drive
from models.units.known import Known
from models.units.latents import bounded, encoded
from models.units.mirror import put_right

Cells = Mapping[int, Tensor]
"""Known cells (C, h, w) by their place in the grid."""


def draw_grid(
    unit: Unit, *, spec: BundleSpec, request: Request, results: Mapping[str, Tensor], noise: NoiseSource
) -> UnitRun:
    """A coarse or an interpolating unit: its grid (C, K*h, K*w), in pixels or latents."""
    cells = yield from _known_cells(unit, spec=spec, request=request, results=results)
    net = spec.nets[Stage.COARSE]
    shape = (1, spec.net_channels, net.input_size, net.input_size)
    fresh = samplers.is_stochastic(request.sampler)
    known_noise = partial(draw, noise, f"known/{unit.key}", shape)
    known = Known.of(cells, spec=spec, noise=lambda i: known_noise(i if fresh else 0)) if cells else None
    own = partial(draw, noise, unit.key, shape)
    sampling = samplers.load(request.sampler)(
        own(0),
        levels=levels(net.schedule, request.coarse_steps, spacing=request.spacing),
        noise=lambda step: own(step + 1),
    )
    asker = Asker(Stage.COARSE, net, request)
    drawn = yield from drive(sampling, partial(_answer, asker, known))
    drawn = drawn if known is None else known.restore(drawn)
    if unit.kind is UnitKind.COARSE:
        drawn = put_right(drawn[0], k=spec.grid, known_rows=_whole_rows(cells, k=spec.grid))[None]
    return bounded(drawn, spec=spec)[0]


def _answer(asker: Asker, known: Known | None, query: Query, count: int) -> Estimating:
    """Estimate with the known cells in their places, before and after."""
    if known is None:
        estimate = yield from asker.estimate(query.x, query.level, count)
        return estimate
    estimate = yield from asker.estimate(known.impose(query.x, query.level, count), query.level, count)
    return Estimate(known.restore(estimate.clean), estimate.variance)


def _known_cells(
    unit: Unit, *, spec: BundleSpec, request: Request, results: Mapping[str, Tensor]
) -> Generator[Evaluate, Tensor, Cells]:
    if unit.kind is UnitKind.INTERPOLATE:
        return _every_mth(unit, spec=spec, request=request, results=results)
    if not unit.requires:
        return {}
    if unit.requires == (REFERENCE,):
        cells = yield from _of_the_user(results[REFERENCE], spec=spec)
        return cells
    return _last_rows(results[unit.requires[0]], spec=spec)


def _last_rows(previous: Tensor, *, spec: BundleSpec) -> Cells:
    """The last rows of the grid before are the first ones of this."""
    count = spec.grid * spec.overlap_rows
    tiles = grid.unpack(previous[None], k=spec.grid)[0]
    return dict(enumerate(tiles[-count:]))


def _of_the_user(frames: Tensor, *, spec: BundleSpec) -> Generator[Evaluate, Tensor, Cells]:
    """Frames (n, C, h, w) in [-1, 1], n of 1..K*K, seen as the nets see a grid: what is missing is the last of them."""
    frames, count = _in_channels(frames, spec.channels), len(frames)
    rest = frames[-1:].expand(spec.grid**2 - count, -1, -1, -1)
    packed = grid.pack(torch.cat([frames, rest])[None], k=spec.grid)
    seen = yield from encoded(packed, spec=spec)
    return dict(enumerate(grid.unpack(seen, k=spec.grid)[0, :count]))


def _in_channels(frames: Tensor, channels: int) -> Tensor:
    """Colour as grey (ITU-R BT.601), where the bundle's frames are grey."""
    if frames.shape[1] == channels:
        return frames
    assert channels == 1, "pictures are grey or colour"
    return 0.299 * frames[:, :1] + 0.587 * frames[:, 1:2] + 0.114 * frames[:, 2:3]


def _every_mth(unit: Unit, *, spec: BundleSpec, request: Request, results: Mapping[str, Tensor]) -> Cells:
    """The frames drawn at full speed, m cells apart, as far as the required grids hold them."""
    k, overlap, factor = spec.grid, spec.overlap_rows, request.slow_motion
    start = unit.index * ((k * k - 1) // factor)
    cells: dict[int, Tensor] = {}
    for place in range(0, k * k, factor):
        frame = start + place // factor
        index = grid.holder(frame, k=k, overlap=overlap)
        held = results.get(f"{UnitKind.COARSE}/{index}") if f"{UnitKind.COARSE}/{index}" in unit.requires else None
        if held is not None:
            tiles = grid.unpack(held[None], k=k)[0]
            cells[place] = tiles[frame - grid.first_frame(index, k=k, overlap=overlap)]
    return cells


def _whole_rows(cells: Cells, *, k: int) -> int:
    """Whole known rows at the beginning; a row that is known in part counts too, for it is right by itself."""
    return -(-len(cells) // k) if cells else 0
