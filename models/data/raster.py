"""Drawing primitives that the procedural domains share.

Everything is laid out on the unit square, x to the right and y down, so that a scene looks the same
at every resolution. `film` owns what all domains have in common: oversampling of small frames,
chunks of frames that fit a cache, and the one place where colours are rounded to bytes.
Nothing here knows what is drawn, and nothing here draws a random number per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Painter = Callable[[Floats, int], Floats]
"""(times (F,), n) -> (F, 3, n, n) sRGB, nominally within 0..1."""

SMALLEST_CANVAS = 32
"""Frames smaller than this are painted at a multiple of their size and averaged: it keeps edges soft."""
_CHUNK_PIXELS = 1 << 16
_LATTICE = 256


def film(paint: Painter, *, frames: int, size: int, first: int) -> NDArray[np.uint8]:
    """Frames first..first+frames-1 of a painter, (frames, size, size, 3) uint8 sRGB."""
    factor = -(-SMALLEST_CANVAS // size)
    canvas = size * factor
    step = max(1, _CHUNK_PIXELS // canvas**2)
    out = np.empty((frames, size, size, 3), dtype=np.uint8)
    for start in range(0, frames, step):
        stop = min(start + step, frames)
        times = np.arange(first + start, first + stop, dtype=np.float32)
        small = box_average(paint(times, canvas), factor)
        np.clip(small, 0.0, 1.0, out=small)
        out[start:stop] = (small * 255.0 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return out


def box_average(images: Floats, factor: int) -> Floats:
    """(..., H, W) -> (..., H/factor, W/factor), the mean of each factor x factor box."""
    if factor == 1:
        return images
    *lead, height, width = images.shape
    columns = images.reshape(-1, factor)
    # Two matrix-vector products beat numpy's reduction over short axes several times over.
    ones = np.full(factor, 1.0 / factor, dtype=np.float32)
    rows = (columns @ ones).reshape(-1, factor, width // factor)
    return np.asarray(np.einsum("afb,f->ab", rows, ones).reshape(*lead, height // factor, width // factor))


def centres(n: int) -> Floats:
    """(n,) coordinates of pixel centres on the unit interval."""
    return ((np.arange(n) + 0.5) / n).astype(np.float32)


def smoothstep(x: Floats) -> Floats:
    """Cubic ease from 0 at x <= 0 to 1 at x >= 1."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x))


def ramp(x: Floats, knots: NDArray[np.floating], values: NDArray[np.floating]) -> Floats:
    """Piecewise linear curve through values (K, C) at increasing knots (K,): x (F,) -> (F, C)."""
    curves = [np.interp(x, knots, values[:, c]) for c in range(values.shape[1])]
    return np.stack(curves, axis=-1).astype(np.float32)


@lru_cache(maxsize=32)
def noise_tile(rows: int, columns: int, *, widths: int, key: int, low: float, slope: float) -> Floats:
    """Periodic smooth noise (rows, columns), mean 0, std about 1, the same field at every resolution.

    It covers one unit of height by `widths` units of width. Wave numbers under `low` cycles
    a unit are damped, those above fall with k**-slope. Vertical waves count as shorter than they are,
    so the features are wider than tall. The lattice is fixed: a finer tile only gains octaves.
    """
    rng = np.random.default_rng(key)
    lattice = _LATTICE * widths
    ky = np.arange(-_LATTICE, _LATTICE + 1)[:, None]
    kx = np.arange(lattice + 1)[None, :]
    phase = rng.uniform(0.0, 2.0 * np.pi, size=(2 * _LATTICE + 1, lattice + 1))
    k = np.hypot(0.62 * ky, kx / widths)
    amplitude = np.where(k > 0, (k / low) ** 2 / (1.0 + (k / low) ** (2.0 + slope)), 0.0)
    spectrum = amplitude * np.exp(1j * phase)
    scale = 1.0 / np.sqrt((amplitude**2).sum())
    keep_y, keep_x = min(_LATTICE, rows // 2 - 1), min(lattice, columns // 2 - 1)
    half = np.zeros((rows, columns // 2 + 1), dtype=np.complex128)
    band = np.arange(-keep_y, keep_y + 1)
    half[band % rows, : keep_x + 1] = spectrum[band + _LATTICE, : keep_x + 1]
    tile = np.fft.irfft2(half, s=(rows, columns)) * (rows * columns * scale)
    return np.ascontiguousarray(tile, dtype=np.float32)
