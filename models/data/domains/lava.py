"""Lava lamp: three to five blobs of wax that rise, sink, merge and part in a coloured liquid.

Blobs are Gaussian bumps; where their sum passes a threshold there is wax. The sum is separable, so a
frame is one small matrix product, and its gradient, which gives the shading, is two more. Wax rises
faster than it sinks, so time has a direction. Growth rings, the rim and the highlight follow
from the field alone: the low-resolution frame tells where each fine line has to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.raster import Floats, centres, film, noise_tile, smoothstep

_WAX = np.array(
    [  # rim, body, core
        [[0.55, 0.04, 0.03], [0.95, 0.30, 0.06], [1.00, 0.86, 0.35]],  # ember
        [[0.62, 0.30, 0.02], [0.98, 0.68, 0.10], [1.00, 0.97, 0.62]],  # gold
        [[0.06, 0.38, 0.12], [0.33, 0.80, 0.22], [0.86, 1.00, 0.55]],  # lime
        [[0.02, 0.34, 0.42], [0.10, 0.76, 0.80], [0.72, 1.00, 0.96]],  # aqua
        [[0.34, 0.08, 0.56], [0.68, 0.33, 0.95], [0.94, 0.78, 1.00]],  # violet
        [[0.58, 0.03, 0.30], [0.96, 0.26, 0.58], [1.00, 0.80, 0.88]],  # rose
    ],
    dtype=np.float32,
)
_LIQUID = np.array(
    [  # top, bottom; chosen to stand off the wax that is three places further on
        [[0.02, 0.05, 0.16], [0.06, 0.22, 0.42]],  # deep blue
        [[0.07, 0.02, 0.18], [0.28, 0.08, 0.42]],  # plum
        [[0.15, 0.02, 0.09], [0.44, 0.07, 0.16]],  # wine
        [[0.12, 0.05, 0.02], [0.38, 0.17, 0.06]],  # amber brown
        [[0.02, 0.10, 0.07], [0.06, 0.32, 0.20]],  # forest
        [[0.04, 0.05, 0.07], [0.20, 0.23, 0.28]],  # slate
    ],
    dtype=np.float32,
)
_PAIRS = ((0, 0), (0, 4), (1, 0), (1, 2), (1, 1), (2, 1), (2, 0), (2, 5), (3, 2), (3, 1), (3, 3),
          (4, 4), (4, 3), (4, 0), (5, 4), (5, 0), (5, 5))  # fmt: skip
_THRESHOLD = 0.5
_LIGHT = np.array([-0.45, -0.62, 0.64], dtype=np.float32)
_TURN = np.float32(2.0 * np.pi)


@dataclass(frozen=True)
class _Lamp:
    """One sequence: K blobs' orbits, each row of `orbit` (2, K, ...) for x and for y, and colours."""

    centre: Floats
    swing: Floats
    period: Floats
    phase: Floats
    radius: Floats
    wax: Floats
    liquid: Floats


def render(seed: int, *, frames: int, size: int, first: int = 0) -> NDArray[np.uint8]:
    """(frames, size, size, 3) sRGB frames first..first+frames-1 of lamp `seed`."""
    lamp = _draw(np.random.default_rng([seed, 1]))
    return film(lambda times, n: _paint(lamp, times, n), frames=frames, size=size, first=first)


def _draw(rng: np.random.Generator) -> _Lamp:
    blobs = int(rng.integers(3, 6))
    lanes = (rng.permutation(blobs) + 0.5) / blobs
    wax, liquid = _PAIRS[int(rng.integers(len(_PAIRS)))]
    return _Lamp(
        centre=_stack(0.2 + 0.6 * lanes, rng.uniform(0.42, 0.60, blobs)),
        swing=_stack(rng.uniform(0.04, 0.14, blobs), rng.uniform(0.18, 0.33, blobs)),
        period=_stack(rng.uniform(50.0, 90.0, blobs), rng.uniform(44.0, 76.0, blobs)),
        phase=_stack(rng.random(blobs), (np.arange(blobs) + rng.random(blobs)) / blobs),
        radius=rng.uniform(0.115, 0.17, blobs).astype(np.float32) * np.float32((4.0 / blobs) ** 0.4),
        wax=_WAX[wax],
        liquid=_LIQUID[liquid],
    )


def _stack(x: NDArray[np.floating], y: NDArray[np.floating]) -> Floats:
    return np.stack([x, y]).astype(np.float32)


def _paint(lamp: _Lamp, times: Floats, n: int) -> Floats:
    """(F,) -> (F, 3, n, n)."""
    field, slope_x, slope_y = _field(lamp, times, n)
    steepness = np.sqrt(slope_x**2 + slope_y**2) + 1e-3
    # Distance to the rim in pixels, so that the edge is one pixel soft at every resolution.
    inside = np.clip((field - _THRESHOLD) / steepness * n + 0.5, 0.0, 1.0)
    depth = smoothstep((field - _THRESHOLD) * 1.05)
    rings = smoothstep(np.float32(2.0) * np.cos(_TURN * np.float32(3.6) * np.sqrt(field)) - 1.0)
    lift = 0.30 * (1.0 - 0.6 * depth)
    facing = (_LIGHT[2] - lift * (_LIGHT[0] * slope_x + _LIGHT[1] * slope_y)) / np.sqrt(1.0 + (lift * steepness) ** 2)
    shine = np.clip(facing, 0.0, 1.0)
    glint = shine**28
    shade = 0.52 + 0.54 * shine
    rim, body, core = (lamp.wax[i][None, :, None, None] for i in range(3))
    skin = smoothstep((field - _THRESHOLD) * 3.6)[:, None]
    wax = rim + skin * (body - rim)
    wax += depth[:, None] * (core - wax)
    wax += (0.30 * rings)[:, None] * (rim - wax)
    wax *= shade[:, None]
    wax += (0.62 * glint)[:, None]
    halo = (0.42 * np.minimum(field, _THRESHOLD) ** 1.5)[:, None]
    frame = _liquid(lamp, n) + halo * body
    frame += inside[:, None] * (wax - frame)
    return np.asarray(frame)


def _field(lamp: _Lamp, times: Floats, n: int) -> tuple[Floats, Floats, Floats]:
    """The blobs' sum and its x and y slopes per unit length, each (F, n, n)."""
    angle = _TURN * (times[:, None] / lamp.period[:, None] + lamp.phase[:, None])
    # The skewed sine of the height makes wax rise in two fifths of its period, sink in three.
    x = lamp.centre[0] + lamp.swing[0] * np.sin(angle[0])
    y = lamp.centre[1] + lamp.swing[1] * np.sin(angle[1] + 0.5 * np.sin(angle[1]))
    squash = 1.0 + 0.12 * np.cos(angle[1])
    gx, dx = _bump(x, lamp.radius * squash, n)
    gy, dy = _bump(y, lamp.radius / squash, n)
    down, down_slope = gy.transpose(0, 2, 1), dy.transpose(0, 2, 1)
    return down @ gx, down @ dx, down_slope @ gx


def _bump(centre: Floats, radius: Floats, n: int) -> tuple[Floats, Floats]:
    """Gaussians (F, K) -> (F, K, n) values and slopes along one axis."""
    away = (centres(n) - centre[..., None]) / radius[..., None]
    value = np.exp(-0.69 * away * away)
    return np.asarray(value), -1.38 * away / radius[..., None] * value


def _liquid(lamp: _Lamp, n: int) -> Floats:
    """The still background, (3, n, n): a gradient lit from below, a vignette, the glass's grain."""
    at = centres(n)
    top, bottom = lamp.liquid[0][:, None, None], lamp.liquid[1][:, None, None]
    colour = top + (at**1.4)[:, None] * (bottom - top)
    across = (2.0 * at - 1.0) ** 2
    vignette = 1.0 - 0.34 * across[None, :] - 0.16 * across[:, None]
    grain = 1.0 + 0.10 * noise_tile(n, n, widths=1, key=11, low=18.0, slope=0.6)
    return np.asarray(colour * (vignette * grain), dtype=np.float32)
