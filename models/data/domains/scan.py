"""Scans: slices through a body, one after the other, as a CT volume is looked at.

A body is a handful of ellipsoids: wall, lungs, heart, liver, kidneys, spine. The index of a
frame is the depth of the slice; past the last organ the first one comes round again. Organs begin
abruptly and taper off, so depth has a direction. The texture of tissue is fixed in the plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.raster import Floats, centres, film, noise_tile, smoothstep

_ORGANS = np.array(
    [  # x, y, half width, half height (body widths from the spine's axis); middle and half length in z; density
        [-0.24, -0.02, 0.17, 0.27, 0.22, 0.27, 0.10],  # lungs
        [0.24, -0.02, 0.17, 0.27, 0.22, 0.27, 0.10],
        [0.07, -0.06, 0.15, 0.16, 0.27, 0.17, 0.66],  # heart
        [-0.16, -0.03, 0.27, 0.22, 0.60, 0.20, 0.60],  # liver
        [0.25, 0.04, 0.12, 0.15, 0.62, 0.15, 0.54],  # spleen
        [-0.20, 0.12, 0.10, 0.12, 0.82, 0.14, 0.78],  # kidneys
        [0.20, 0.12, 0.10, 0.12, 0.80, 0.14, 0.78],
        [0.00, -0.14, 0.25, 0.13, 0.94, 0.20, 0.32],  # bowel
    ],
    dtype=np.float32,
)
_DENSITIES = np.array([0.0, 0.3, 0.62, 1.0])
_TONES = np.array(
    [  # what the densities above look like: cool, warm, green and violet film
        [[0.01, 0.02, 0.03], [0.14, 0.25, 0.36], [0.55, 0.62, 0.66], [0.98, 0.97, 0.92]],
        [[0.03, 0.01, 0.01], [0.36, 0.19, 0.13], [0.72, 0.57, 0.47], [1.00, 0.97, 0.88]],
        [[0.00, 0.02, 0.02], [0.07, 0.28, 0.26], [0.42, 0.66, 0.58], [0.94, 1.00, 0.90]],
        [[0.02, 0.01, 0.04], [0.24, 0.18, 0.38], [0.60, 0.54, 0.72], [1.00, 0.95, 0.97]],
    ]
)
_TURN = np.float32(2.0 * np.pi)


@dataclass(frozen=True)
class _Body:
    """One volume; lengths in frame widths, `organs` as the table above, (O, 7)."""

    length: float
    """Frames from one round of organs to the next."""
    start: float
    width: float
    depth: float
    sway: Floats
    organs: Floats
    tones: NDArray[np.float64]


def render(seed: int, *, frames: int, size: int, first: int = 0) -> NDArray[np.uint8]:
    """(frames, size, size, 3) sRGB slices first..first+frames-1 of volume `seed`."""
    body = _draw(np.random.default_rng([seed, 4]))
    return film(lambda times, n: _paint(body, times, n), frames=frames, size=size, first=first)


def _draw(rng: np.random.Generator) -> _Body:
    organs = _ORGANS.copy()
    organs[:, :2] += rng.uniform(-0.025, 0.025, (len(organs), 2))
    organs[:, 2:4] *= rng.uniform(0.86, 1.14, (len(organs), 2))
    organs[:, 4] += rng.uniform(-0.03, 0.03, len(organs))
    # Half of all bodies lie mirrored, liver to the right.
    organs[:, 0] *= rng.choice([-1.0, 1.0])
    return _Body(
        length=float(rng.uniform(42.0, 60.0)),
        start=float(rng.random()),
        width=float(rng.uniform(0.38, 0.45)),
        depth=float(rng.uniform(0.32, 0.41)),
        sway=rng.uniform(-1.0, 1.0, 4).astype(np.float32),
        organs=organs,
        tones=_TONES[int(rng.integers(len(_TONES)))],
    )


def _paint(body: _Body, times: Floats, n: int) -> Floats:
    """(F,) -> (F, 3, n, n)."""
    z = (times / np.float32(body.length) + np.float32(body.start)) % 1.0
    x, y = _centre(body, z)
    u = (centres(n) - x[:, None])[:, None, :]
    v = (centres(n) - y[:, None])[:, :, None]
    density, flesh = _wall(body, z, u, v)
    tissue = noise_tile(n, n, widths=1, key=19, low=9.0, slope=1.2)
    for organ in body.organs:
        inside = flesh * _slice(body, organ, z, u, v)
        grain = 0.13 * smoothstep(np.float32(1.2) * tissue - np.float32(0.4)) if organ[6] < 0.2 else 0.02 * tissue
        density += inside * (organ[6] + grain - density)
    _add_spine(density, body, u, v)
    return _tone(density, body.tones)


def _centre(body: _Body, z: Floats) -> tuple[Floats, Floats]:
    """The body's axis, which winds a little: (F,) each."""
    x = 0.5 + 0.05 * body.sway[0] * np.sin(_TURN * z) + 0.012 * body.sway[1] * np.sin(2.0 * _TURN * z)
    y = 0.5 + 0.05 * body.sway[2] * np.cos(_TURN * z) + 0.012 * body.sway[3] * np.cos(2.0 * _TURN * z)
    return x.astype(np.float32), y.astype(np.float32)


def _wall(body: _Body, z: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Densities (F, n, n) of skin, fat, muscle and ribs; and where organs have room."""
    n = u.shape[-1]
    waist = 1.0 - 0.11 * np.cos(_TURN * (z - 0.62)) + 0.04 * np.cos(2.0 * _TURN * z)
    width = (body.width * waist)[:, None, None]
    depth = (body.depth * (1.0 - 0.6 * (waist - 1.0)))[:, None, None]
    reach = np.sqrt((u / width) ** 2 + (v / depth) ** 2)
    pixels = np.float32(body.depth * n)
    skin, fat, flesh = (np.clip((edge - reach) * pixels + 0.5, 0.0, 1.0) for edge in (1.0, 0.965, 0.86))
    density = skin * 0.55 + fat * (0.26 - 0.55) + flesh * (0.46 - 0.26)
    # Ribs run obliquely, so in slices they wander round the wall.
    around = np.arctan2(v, np.abs(u) + 1e-4)
    chest = smoothstep((np.float32(0.33) - np.abs(z - np.float32(0.26))) * np.float32(6.0))[:, None, None]
    beat = smoothstep(np.asarray(2.4 * np.cos(6.0 * around - (2.0 * _TURN * z)[:, None, None]) + 0.1))
    ring = smoothstep(3.0 - np.abs(reach - 0.865) * (3.0 / 0.045))
    density += chest * ring * beat * (0.92 - density)
    room = np.clip((0.81 - reach) * pixels + 0.5, 0.0, 1.0)
    return density, room


def _slice(body: _Body, organ: Floats, z: Floats, u: Floats, v: Floats) -> Floats:
    """The share (F, n, n) of each pixel inside an organ at these depths."""
    n = u.shape[-1]
    along = ((z - organ[4] + 0.5) % 1.0 - 0.5) / organ[5]
    # Blunt where it begins, tapered where it ends.
    along = np.maximum(along + 1.0, 0.0) ** 1.35 / np.float32(2.0**0.35) - 1.0
    extent = np.sqrt(np.clip(1.0 - along * along, 0.0, 1.0))[:, None, None]
    scale_x, scale_y = 2.0 * body.width, 2.0 * body.depth
    wide, high = organ[2] * scale_x, organ[3] * scale_y
    reach = np.sqrt(((u - organ[0] * scale_x) / wide) ** 2 + ((v - organ[1] * scale_y) / high) ** 2)
    inside = np.clip((extent - reach) * (min(wide, high) * n) + 0.5, 0.0, 1.0)
    return np.asarray(inside * smoothstep(extent * 4.0))


def _add_spine(density: Floats, body: _Body, u: Floats, v: Floats) -> None:
    """A vertebra with its canal, in every slice of (F, n, n)."""
    n = density.shape[-1]
    behind = v - np.float32(0.56 * body.depth)
    bone, marrow = 0.085, 0.052
    reach = np.sqrt(u**2 + behind**2)
    arch = np.sqrt((u * 0.8) ** 2 + (behind - 0.105) ** 2)
    for edge, away, tone in ((bone, reach, 0.98), (marrow, reach, 0.74), (0.052, arch, 0.95), (0.03, arch, 0.34)):
        density += np.clip((edge - away) * n + 0.5, 0.0, 1.0) * (tone - density)


def _tone(density: Floats, tones: NDArray[np.float64]) -> Floats:
    """Densities (F, n, n) to the colours of a film on its light box, (F, 3, n, n)."""
    levels = np.clip(density, 0.0, 1.0) * 255.0
    table = np.stack([np.interp(np.arange(257) / 255.0, _DENSITIES, tones[:, c]) for c in range(3)])
    whole = levels.astype(np.int64)
    part = (levels - whole)[:, None]
    low, high = table.astype(np.float32)[:, whole], table.astype(np.float32)[:, whole + 1]
    return np.asarray((low + part.transpose(1, 0, 2, 3) * (high - low)).transpose(1, 0, 2, 3), dtype=np.float32)
