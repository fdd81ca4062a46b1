"""Stars, ridges and woods: the still parts of a landscape.

Stars and woods are the same wherever they appear, as a painter's backdrop would be. What a net
adds to a coarse frame when it refines it can then be right, not only plausible, and stands still.
Lengths are in frame widths, and heights grow upwards.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from models.data.raster import Floats, box_average, centres


@lru_cache(maxsize=8)
def stars(n: int) -> Floats:
    """Brightness (n, n) of the one starry sky that there is."""
    rng = np.random.default_rng(3)
    factor = -(-512 // n)
    fine = centres(n * factor)
    sky = np.zeros((n * factor, n * factor), dtype=np.float32)
    for x, y, size, light in rng.random((84, 4)):
        sigma = 0.0032 + 0.0028 * size**4
        across = np.exp(-(((fine - x) / sigma) ** 2) / 2.0)
        down = np.exp(-(((fine - 0.8 * y) / sigma) ** 2) / 2.0)
        sky += np.float32(0.35 + 0.65 * light) * down[:, None] * across[None, :]
    return box_average(sky, factor)


def below(top: Floats, n: int) -> Floats:
    """The share (n, n) of each pixel that lies under a silhouette (4 n,) of heights."""
    covered = np.clip((centres(n)[:, None] - top) * n + 0.5, 0.0, 1.0)
    return np.asarray(covered.reshape(n, n, 4).mean(axis=-1))


def ridge(weights: Floats, x: Floats, lowest: float) -> Floats:
    """A profile of a few slow waves, within about -1..1."""
    waves = [
        np.sin(2.0 * np.pi * (lowest * (i // 2 + 1) * x + 0.25 * (i % 2))) / (i // 2 + 1) for i in range(len(weights))
    ]
    return np.asarray(weights @ np.stack(waves) / 1.5, dtype=np.float32)


@lru_cache(maxsize=8)
def trees(columns: int) -> Floats:
    """Height (columns,) of the spruces above the ground: one and the same wood for every scene."""
    x = centres(columns)
    rng = np.random.default_rng(5)
    wood = np.zeros_like(x)
    feet = (np.arange(44) + rng.uniform(0.1, 0.9, 44)) / 44
    heights, breadths = rng.random(44) ** 1.5, rng.random(44)
    for foot, height, breadth in zip(feet, heights, breadths, strict=True):
        tall = 0.02 + 0.055 * height
        across = np.abs(x - foot) / (0.20 * tall + 0.002 + 0.002 * breadth)
        tiers = 1.0 - across + 0.16 * np.sin(across * 14.0)
        wood = np.maximum(wood, tall * np.clip(tiers, 0.0, 1.0) * (across < 1.0))
    return wood.astype(np.float32)
