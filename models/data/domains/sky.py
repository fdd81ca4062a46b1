"""Sky time-lapse: day and night over wooded hills, with drifting clouds.

One cycle of sun and moon takes 54-80 frames, more of it day than night. Both rise at the left and
the wind blows to the right, so time has a direction. Stars and trees are the same in every
sequence and clouds keep their shape while they drift: fine detail is steady, and can be guessed
from the coarse frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.raster import Floats, centres, film, noise_tile, ramp, smoothstep
from models.data.scenery import below, ridge, stars, trees

_DAY = 0.64
_HORIZON = 0.80
_CLOUD_WIDTHS = 4
"""Widths of a frame after which the clouds come round again."""
_HEIGHTS = np.array([-0.56, -0.22, -0.06, 0.06, 0.20, 0.45, 1.0])
"""Knots of the light: height of the sun, 0 at the horizon, 1 at noon, -0.56 at midnight."""
_ZENITH = np.array(
    [[5, 8, 30], [8, 11, 42], [44, 44, 104], [70, 88, 168], [62, 118, 206], [38, 106, 214],
     [28, 96, 212]]) / 255.0  # fmt: skip
_LOW_SKY = np.array(
    [[22, 28, 66], [34, 36, 84], [214, 98, 72], [255, 152, 66], [252, 208, 140], [186, 220, 246],
     [168, 214, 248]]) / 255.0  # fmt: skip
_CLOUD_LIT = np.array(
    [[30, 34, 62], [38, 40, 74], [212, 110, 112], [255, 176, 128], [255, 226, 196], [255, 253, 250],
     [255, 255, 255]]) / 255.0  # fmt: skip
_CLOUD_DARK = np.array(
    [[14, 16, 38], [20, 20, 48], [92, 58, 104], [150, 98, 126], [178, 158, 176], [182, 198, 222],
     [188, 206, 230]]) / 255.0  # fmt: skip
_SUNLIGHT = np.array(
    [[20, 25, 52], [26, 28, 62], [96, 66, 84], [186, 126, 100], [236, 204, 166], [255, 250, 236],
     [255, 255, 250]]) / 255.0  # fmt: skip
_GLOW = np.array(
    [[0, 0, 0], [10, 6, 6], [120, 50, 16], [150, 84, 22], [120, 84, 34], [70, 62, 42], [60, 58, 46]]
) / 255.0  # fmt: skip
_MOON_GLOW = np.array([0.10, 0.12, 0.20])
_DUSKS = np.array([[1.0, 1.0, 1.0], [1.04, 0.86, 1.22], [1.0, 1.1, 0.86], [0.92, 0.9, 1.3]])
"""Tints of dawn and dusk: orange, pink, gold, violet."""
_GROUNDS = np.array(
    [[58, 128, 50], [34, 88, 58], [152, 130, 52], [112, 84, 118], [150, 92, 54]]
) / 255.0  # fmt: skip
"""Meadow, conifers, straw, heather, rust."""


@dataclass(frozen=True)
class _Scene:
    """One sequence; times in frames, lengths in frame widths."""

    period: float
    phase: float
    wind: float
    cloud_at: tuple[float, float]
    cover: float
    dusk: Floats
    ground: Floats
    near: Floats
    far: Floats


def render(seed: int, *, frames: int, size: int, first: int = 0) -> NDArray[np.uint8]:
    """(frames, size, size, 3) sRGB frames first..first+frames-1 of sky `seed`."""
    scene = _draw(np.random.default_rng([seed, 2]))
    land: dict[int, tuple[Floats, Floats]] = {}

    def paint(times: Floats, n: int) -> Floats:
        if n not in land:
            land[n] = _land(scene, n)
        return _paint(scene, times, land[n])

    return film(paint, frames=frames, size=size, first=first)


def _draw(rng: np.random.Generator) -> _Scene:
    tint = _DUSKS[int(rng.integers(len(_DUSKS)))]
    return _Scene(
        period=float(rng.uniform(54.0, 80.0)),
        phase=float(rng.random()),
        wind=float(rng.uniform(0.018, 0.05)),
        cloud_at=(float(rng.random()), float(rng.uniform(0.0, _CLOUD_WIDTHS))),
        cover=float(rng.uniform(0.2, 1.3)),
        dusk=tint.astype(np.float32),
        ground=_GROUNDS[int(rng.integers(len(_GROUNDS)))].astype(np.float32),
        near=rng.uniform(-1.0, 1.0, 4).astype(np.float32),
        far=rng.uniform(-1.0, 1.0, 4).astype(np.float32),
    )


def _paint(scene: _Scene, times: Floats, land: tuple[Floats, Floats]) -> Floats:
    """(F,), (cover (n, n), colour (3, n, n)) -> (F, 3, n, n)."""
    cover, colour = land
    n = cover.shape[0]
    cycle = (times / np.float32(scene.period) + np.float32(scene.phase)) % 1.0
    height = _sun_height(cycle)
    alpha, shade = _clouds(scene, times, n)
    frame = _clear_sky(scene, cycle, height, n)
    night = smoothstep((-0.04 - height) * 5.0)
    frame += (night[:, None, None] * stars(n))[:, None]
    _add_sun_or_moon(frame, cycle, height)
    dusk = _dusk(scene, height)
    lit = (ramp(height, _HEIGHTS, _CLOUD_LIT) * dusk)[..., None, None]
    dark = (ramp(height, _HEIGHTS, _CLOUD_DARK) * dusk)[..., None, None]
    cloud = dark + shade[:, None] * (lit - dark)
    cloud -= frame
    cloud *= alpha[:, None]
    frame += cloud
    sunlight = (ramp(height, _HEIGHTS, _SUNLIGHT) * dusk)[..., None, None]
    frame *= 1.0 - cover
    frame += colour * sunlight
    return frame


def _sun_height(cycle: Floats) -> Floats:
    """Height of the sun for a position in the cycle, smooth across the horizon."""
    night = (1.0 - _DAY) / _DAY * np.sin(np.pi * (cycle - _DAY) / (1.0 - _DAY))
    return np.asarray(np.where(cycle < _DAY, np.sin(np.pi * cycle / _DAY), -night), dtype=np.float32)


def _dusk(scene: _Scene, height: Floats) -> Floats:
    """(F,) -> (F, 3): the tint of this sequence's dawn, strongest with the sun at the horizon."""
    amount = np.exp(-(((height - 0.03) / 0.17) ** 2))[:, None]
    return np.asarray(1.0 + amount * (scene.dusk - 1.0), dtype=np.float32)


def _clear_sky(scene: _Scene, cycle: Floats, height: Floats, n: int) -> Floats:
    """(F, 3, n, n): the gradient from the horizon to the zenith."""
    dusk = _dusk(scene, height)
    zenith = (ramp(height, _HEIGHTS, _ZENITH) * dusk)[..., None]
    low = (ramp(height, _HEIGHTS, _LOW_SKY) * dusk)[..., None]
    up = np.clip(1.0 - centres(n) / _HORIZON, 0.0, 1.0) ** 0.9
    rows = low + up * (zenith - low)
    return np.asarray(np.repeat(rows[..., None], n, axis=-1))


def _add_sun_or_moon(frame: Floats, cycle: Floats, height: Floats) -> None:
    """Draw the one that is up, with its glow, on (F, 3, n, n)."""
    n = frame.shape[-1]
    day = cycle < _DAY
    along = np.where(day, cycle / _DAY, (cycle - _DAY) / (1.0 - _DAY))
    rise = np.where(day, 0.62, 0.46) * np.sin(np.pi * along)
    away_x = centres(n) - (1.2 * along - 0.1)[:, None]
    away_y = centres(n) - (_HORIZON + 0.04 - rise)[:, None]
    reach = np.where(day, 0.045, 0.012)[:, None]
    glow_x, glow_y = np.exp(-(away_x**2) / (1.5 * reach)), np.exp(-(away_y**2) / reach)
    tone = np.where(day[:, None], ramp(height, _HEIGHTS, _GLOW), _MOON_GLOW)
    glow = glow_y[:, :, None] * glow_x[:, None, :]
    frame += tone[..., None, None].astype(np.float32) * glow[:, None].astype(np.float32)
    radius = np.where(day, 0.068, 0.056)[:, None, None].astype(np.float32)
    square = away_y.astype(np.float32)[:, :, None] ** 2
    disc = np.clip((radius - np.sqrt(square + away_x[:, None] ** 2)) * n + 0.5, 0.0, 1.0)
    # The unlit part of the moon is a second disc beside the first; the sun's lies far outside.
    aside = np.where(day, 1.0, 0.045).astype(np.float32)[:, None, None]
    shadow = np.sqrt(square + (away_x[:, None] - aside) ** 2)
    disc *= np.clip((shadow - 0.9 * radius) * n + 0.5, 0.12, 1.0)
    face = np.where(day[:, None], [1.0, 0.95, 0.74], [0.93, 0.94, 0.98])
    frame += disc[:, None] * (face[..., None, None].astype(np.float32) - frame)


def _clouds(scene: _Scene, times: Floats, n: int) -> tuple[Floats, Floats]:
    """Opacity and lightness, both (F, n, n)."""
    # Twice as many columns as pixels: interpolation between them then hardly blurs, so that the
    # clouds' sharpness does not pulse while they drift.
    columns = 2 * _CLOUD_WIDTHS * n
    tile = noise_tile(n, columns, widths=_CLOUD_WIDTHS, key=7, low=1.05, slope=2.3)
    at = (centres(n) + np.float32(scene.cloud_at[0])) * n
    body, under_body = (_rows(tile, at + shift * n) for shift in (0.0, 0.045))
    both = [np.concatenate([rows, rows[:, : 2 * n + 2]], axis=1) for rows in (body, under_body)]
    here = np.empty((len(times), n, n), dtype=np.float32)
    under = np.empty_like(here)
    start = (scene.cloud_at[1] - times.astype(np.float64) * scene.wind) % _CLOUD_WIDTHS * 2 * n
    for frame, at in enumerate(start):
        whole, part = int(at), np.float32(at % 1.0)
        for source, target in zip(both, (here, under), strict=True):
            left = source[:, whole : whole + 2 * n : 2]
            target[frame] = left + part * (source[:, whole + 1 : whole + 1 + 2 * n : 2] - left)
    at_y = centres(n)
    window = smoothstep((0.86 - at_y) * 4.0)[:, None]
    alpha = smoothstep((here - np.float32(scene.cover)) * 1.25) * (0.94 * window)
    shade = smoothstep(0.60 + 1.3 * (under - here))
    return alpha, shade


def _rows(tile: Floats, at: Floats) -> Floats:
    whole = np.floor(at).astype(np.int64)
    part = (at - whole).astype(np.float32)[:, None]
    n = tile.shape[0]
    return np.asarray(tile[whole % n] * (1.0 - part) + tile[(whole + 1) % n] * part)


def _land(scene: _Scene, n: int) -> tuple[Floats, Floats]:
    """Cover (n, n) of the two ridges, and their colour (3, n, n) in full light, times the cover."""
    columns = centres(4 * n)
    far_top = 0.735 + 0.05 * ridge(scene.far, columns, 1.3)
    near_ground = 0.845 + 0.05 * ridge(scene.near, columns, 0.9)
    far, near, soil = (below(top, n) for top in (far_top, near_ground - trees(4 * n), near_ground))
    at = centres(n)
    grain = noise_tile(n, n, widths=1, key=13, low=14.0, slope=0.7)
    haze = np.array([0.52, 0.62, 0.74], dtype=np.float32)
    far_colour = (0.52 * scene.ground + 0.48 * haze) * 0.8
    depth = 1.0 - 1.5 * np.clip(at - 0.8, 0.0, 1.0)
    grass = scene.ground[:, None, None] * (depth[:, None] * (1.0 + 0.16 * grain))
    wood = scene.ground[:, None, None] * np.array([0.42, 0.52, 0.5], dtype=np.float32)[:, None, None]
    land = wood + soil * (grass - wood)
    hills = far_colour[:, None, None] * (1.0 + 0.07 * grain)
    colour = near * land + (1.0 - near) * far * hills
    return (near + (1.0 - near) * far), colour.astype(np.float32)
