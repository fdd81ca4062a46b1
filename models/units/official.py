"""The released loop, oddities included: for parity with what was published, not for quality.

Ancestral steps whose known rows are injected after each step but the last, at the level before it (one step too
noisy), with the noise of other rows, and are never restored; each grid conditions the next as an 8-bit picture that
is encoded by sampling. Row numbers are those of a 4 x 4 grid. Facts: Tomar et al. 2025 (arXiv 2512.21276), read off
its released code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from models.noise import NoiseSource
from models.plan import Request, Unit, UnitKind
from models.samplers.ddpm import advance
from models.schedules import levels
from models.spec import OFFICIAL_GRID, BundleSpec, Stage
from models.units.asking import Asker, Evaluate, UnitRun, draw
from models.units.latents import bounded, eight_bit, encoded

_ROWS = OFFICIAL_GRID


@dataclass(frozen=True, slots=True)
class Injected:
    """Rows of frames that are put into a grid from another, with the step noise of the rows they are taken from."""

    source: Tensor
    """(1, C, S, S)."""
    taken: slice
    """Rows of `source`, and of the step's noise."""
    put: slice
    """Rows of the grid that is drawn."""


def after(previous: Tensor) -> tuple[Injected, ...]:
    """Pass A: the last three rows of a grid become the first three of the next."""
    return (Injected(previous, slice(1, 4), slice(0, 3)),)


def between(source: Tensor, target: Tensor) -> tuple[Injected, ...]:
    """Pass B: the last rows of two grids become the first and the last; both get the noise of the last."""
    return Injected(source, slice(3, 4), slice(0, 1)), Injected(target, slice(3, 4), slice(3, 4))


def draw_grid(
    unit: Unit, *, spec: BundleSpec, request: Request, results: Mapping[str, Tensor], noise: NoiseSource
) -> UnitRun:
    """A coarse or an interpolating unit: its grid (C, 4*h, 4*w), in pixels or latents."""
    net = spec.nets[Stage.COARSE]
    shape = (1, spec.net_channels, net.input_size, net.input_size)
    shown: list[Tensor] = []
    for place, key in enumerate(unit.requires):
        posterior = draw(noise, f"encode/{unit.key}", shape, place) if spec.autoencoder else None
        shown.append((yield from encoded(eight_bit(results[key])[None], spec=spec, noise=posterior)))
    injected: tuple[Injected, ...] = ()
    if shown:
        injected = between(*shown) if unit.kind is UnitKind.INTERPOLATE else after(*shown)
    own = partial(draw, noise, unit.key, shape)
    asker = Asker(Stage.COARSE, net, request)
    drawn = yield from ancestral(own(0), asker, injected=injected, noise=lambda step: own(step + 1))
    return bounded(drawn, spec=spec)[0]


def ancestral(
    x: Tensor, asker: Asker, *, injected: Sequence[Injected], noise: Callable[[int], Tensor]
) -> Generator[Evaluate, Tensor, Tensor]:
    """From pure noise `x` (1, C, S, S) down the respaced chain; noise(i) is the draw of the i-th executed step."""
    chain = levels(asker.net.schedule, asker.request.coarse_steps)
    for step, (here, there) in enumerate(pairwise(chain)):
        estimate = yield from asker.estimate(x, here)
        fresh = noise(step)
        x = advance(x, estimate, here=here, there=there, noise=fresh)
        if there.sigma > 0:
            for rows in injected:
                noisy = here.alpha * _rows(rows.source, rows.taken) + here.sigma * _rows(fresh, rows.taken)
                x = _with_rows(x, rows.put, noisy)
    return x


def _rows(image: Tensor, rows: slice) -> Tensor:
    height = image.shape[-2] // _ROWS
    return image[..., rows.start * height : rows.stop * height, :]


def _with_rows(image: Tensor, rows: slice, given: Tensor) -> Tensor:
    height = image.shape[-2] // _ROWS
    return torch.cat([image[..., : rows.start * height, :], given, image[..., rows.stop * height :, :]], dim=-2)
