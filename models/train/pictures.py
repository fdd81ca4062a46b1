"""The curve of a run's losses as a picture, with nothing but Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.media import Frame

_WIDTH, _HEIGHT, _MARGIN = 720, 360, 44
_SMOOTHED_OVER = 50
_INK, _FAINT, _LINE = (60, 60, 60), (214, 224, 236), (24, 92, 176)


def loss_curve(steps: Sequence[int], losses: Sequence[float]) -> Frame:
    """Every loss faintly, their running mean on top; the vertical axis is logarithmic."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    if len(steps) > 1:
        values = np.log10(np.maximum(losses, 1e-9))
        low, high = float(values.min()), float(max(values.max(), values.min() + 1e-3))
        smooth = _running_mean(values)
        for curve, colour, width in ((values, _FAINT, 1), (smooth, _LINE, 2)):
            along = np.asarray(steps) / steps[-1]
            draw.line(_places(along, (curve - low) / (high - low)), fill=colour, width=width)
        for up in (0.0, 0.5, 1.0):
            _, height = _places(np.zeros(1), np.array([up]))[0]
            draw.text((4, height - 6), f"{10 ** (low + up * (high - low)):.3g}", fill=_INK)
        draw.text((_MARGIN, _HEIGHT - 18), f"loss; {10 ** smooth[-1]:.4g} after {steps[-1]} steps", fill=_INK)
    return np.asarray(image)


def _places(along: NDArray[np.float64], up: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Pixels of points in the unit square."""
    across = _MARGIN + along * (_WIDTH - 2 * _MARGIN)
    down = _HEIGHT - _MARGIN - up * (_HEIGHT - 2 * _MARGIN)
    return [(float(x), float(y)) for x, y in zip(across, down, strict=True)]


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(total))
    starts = np.maximum(0, ends - _SMOOTHED_OVER)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))
