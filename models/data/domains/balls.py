"""Bouncing balls: one large, one small, over a chequered floor.

Each ball falls and rebounds as gravity has it, with a period of its own, and drifts from wall to
wall. A trail of its colour fades behind it, so time has a direction. Floor, wall and the stripe
on a ball are fixed to what they belong to; shading and shadow follow from the ball's place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.raster import Floats, centres, film, noise_tile, smoothstep

_FLOOR = 0.80
_TRAIL = (2.5, 5.0, 7.5)
"""Age in frames of the ghosts behind a ball."""
_PAINTS = np.array(
    [
        [0.93, 0.22, 0.20],
        [0.98, 0.62, 0.12],
        [0.24, 0.72, 0.34],
        [0.12, 0.62, 0.84],
        [0.48, 0.34, 0.90],
        [0.94, 0.36, 0.64],
    ],
    dtype=np.float32,
)
_ROOMS = np.array(
    [  # wall at the top, wall at the floor, light tile, dark tile
        [[0.16, 0.20, 0.34], [0.34, 0.42, 0.58], [0.66, 0.70, 0.78], [0.30, 0.34, 0.46]],
        [[0.36, 0.20, 0.26], [0.70, 0.44, 0.40], [0.88, 0.76, 0.66], [0.52, 0.32, 0.30]],
        [[0.10, 0.26, 0.26], [0.28, 0.52, 0.48], [0.70, 0.80, 0.72], [0.24, 0.40, 0.38]],
        [[0.70, 0.66, 0.56], [0.94, 0.90, 0.80], [0.86, 0.80, 0.70], [0.56, 0.48, 0.42]],
        [[0.22, 0.16, 0.32], [0.48, 0.36, 0.58], [0.78, 0.72, 0.84], [0.36, 0.28, 0.48]],
    ],
    dtype=np.float32,
)
_LIGHT = np.array([-0.48, -0.60, 0.64], dtype=np.float32)


@dataclass(frozen=True)
class _Ball:
    """Lengths in frame widths, times in frames."""

    radius: float
    bounce: float
    """Frames from one touch of the floor to the next."""
    leap: float
    drift: float
    """Frames to cross the room and come back."""
    bounce_phase: float
    drift_phase: float
    paint: Floats


def render(seed: int, *, frames: int, size: int, first: int = 0) -> NDArray[np.uint8]:
    """(frames, size, size, 3) sRGB frames first..first+frames-1 of room `seed`."""
    rng = np.random.default_rng([seed, 3])
    room = _ROOMS[int(rng.integers(len(_ROOMS)))]
    paints = _PAINTS[rng.permutation(len(_PAINTS))[:2]]
    balls = [
        _ball(rng, radius=rng.uniform(0.10, 0.13), paint=paints[0]),
        _ball(rng, radius=rng.uniform(0.16, 0.20), paint=paints[1]),
    ]
    return film(lambda times, n: _paint(room, balls, times, n), frames=frames, size=size, first=first)


def _ball(rng: np.random.Generator, *, radius: float, paint: Floats) -> _Ball:
    bounce = float(rng.uniform(23.0, 35.0))
    return _Ball(
        radius=float(radius),
        bounce=bounce,
        # Higher leaps take longer, as under one gravity; the fall stays below 1 px a frame at 16 px.
        leap=0.45 * (bounce / 35.0) ** 1.3,
        drift=float(rng.uniform(70.0, 130.0)),
        bounce_phase=float(rng.random()),
        drift_phase=float(rng.random()),
        paint=paint,
    )


def _paint(room: Floats, balls: list[_Ball], times: Floats, n: int) -> Floats:
    """(F,) -> (F, 3, n, n)."""
    frame = np.repeat(_room(room, n)[None], len(times), axis=0)
    for ball in balls:
        _cast_shadow(frame, ball, times)
    for ball in balls:
        _leave_trail(frame, ball, times)
        _draw_ball(frame, ball, times)
    return frame


def _where(ball: _Ball, times: Floats) -> tuple[Floats, Floats]:
    """Centre of the ball at each time, x and y, (F,) each."""
    swing = np.sin(2.0 * np.pi * (times / ball.drift + ball.drift_phase))
    fall = (times / ball.bounce + ball.bounce_phase) % 1.0
    x = 0.5 + (0.47 - ball.radius) * swing
    y = _FLOOR + 0.05 - ball.radius - 4.0 * ball.leap * fall * (1.0 - fall)
    return x.astype(np.float32), y.astype(np.float32)


def _cast_shadow(frame: Floats, ball: _Ball, times: Floats) -> None:
    """Darken the floor of (F, 3, n, n) under the ball, less and wider the higher it is."""
    at = centres(frame.shape[-1])
    x, y = _where(ball, times)
    up = (_FLOOR + 0.05 - ball.radius - y)[:, None]
    across = np.exp(-(((at - x[:, None]) / (ball.radius * (1.0 + up))) ** 2))
    down = np.exp(-(((at - _FLOOR - 0.065) / 0.04) ** 2)) * (0.62 - 0.8 * up)
    frame *= 1.0 - (down[:, :, None] * across[:, None, :])[:, None]


def _leave_trail(frame: Floats, ball: _Ball, times: Floats) -> None:
    at = centres(frame.shape[-1])
    for rank, age in enumerate(_TRAIL):
        x, y = _where(ball, times - np.float32(age))
        width = ball.radius * (0.80 - 0.13 * rank)
        across = np.exp(-(((at - x[:, None]) / width) ** 2))
        down = (0.36 - 0.09 * rank) * np.exp(-(((at - y[:, None]) / width) ** 2))
        glow = (down[:, :, None] * across[:, None, :])[:, None]
        frame += glow * (ball.paint[None, :, None, None] - frame)


def _draw_ball(frame: Floats, ball: _Ball, times: Floats) -> None:
    n = frame.shape[-1]
    x, y = _where(ball, times)
    u = ((centres(n) - x[:, None]) / np.float32(ball.radius))[:, None, :]
    v = ((centres(n) - y[:, None]) / np.float32(ball.radius))[:, :, None]
    square = u * u + v * v
    cover = np.clip((1.0 - np.sqrt(square)) * (ball.radius * n) + 0.5, 0.0, 1.0)[:, None]
    bulge = np.sqrt(np.maximum(1.0 - square, 0.0))
    light = _LIGHT[0] * u + _LIGHT[1] * v + _LIGHT[2] * bulge
    # A white stripe round the ball, seen a little from above.
    belt = smoothstep((0.24 - np.abs(0.94 * v + 0.34 * bulge - 0.12)) * (ball.radius * n * 0.7) + 0.5)
    paint = ball.paint[:, None, None] + belt[:, None] * (0.96 - ball.paint[:, None, None])
    lit = paint * (0.42 + 0.64 * np.maximum(light, 0.0))[:, None]
    lit += (0.75 * np.maximum(light, 0.0) ** 36)[:, None]
    frame += cover * (lit - frame)


def _room(room: Floats, n: int) -> Floats:
    """Wall and floor, (3, n, n)."""
    at = centres(n)
    top, foot, light, dark = (colour[:, None, None] for colour in room)
    plaster = 1.0 + 0.035 * noise_tile(n, n, widths=1, key=17, low=16.0, slope=0.8)
    wall = (top + (np.clip(at / _FLOOR, 0.0, 1.0) ** 1.3)[:, None] * (foot - top)) * plaster
    wall = wall * (1.0 - 0.22 * (2.0 * at - 1.0) ** 2)
    depth = np.maximum(at - _FLOOR + 0.12, 0.02)[:, None]
    columns, rows = (at - 0.5)[None, :] / depth * 1.1, 0.30 / depth
    # The product of two soft square waves; softer where the tiles are small, far from the eye.
    edge = 0.26 * n * depth
    squares = np.clip(edge * np.sin(np.pi * columns), -1.0, 1.0) * np.clip(edge * np.sin(np.pi * rows), -1.0, 1.0)
    floor = dark + (0.5 + 0.5 * squares) * (light - dark)
    below = np.clip((at - _FLOOR) * n + 0.5, 0.0, 1.0)[:, None]
    return np.asarray(wall + below * (floor * (0.8 + at[:, None] * 0.25) - wall), dtype=np.float32)
