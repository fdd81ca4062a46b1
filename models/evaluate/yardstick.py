"""Figures of sequences measured against real ones of the same class and size.

A yardstick measures its real sequences once, and then anything that is held against them: what a net
drew, other real sequences, and real ones that were spoiled on purpose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.evaluate import features
from models.evaluate.distances import frechet, total_variation, wasserstein

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]

_FLOORS = np.array(list(features.FEATURES.values()))
_STRIDE = 4
"""Sequences are compared with one another at every fourth frame."""


class Yardstick:
    """Real sequences (S, F, H, W, 3), measured; grids hold `columns` frames a row."""

    def __init__(self, real: Bytes, *, columns: int) -> None:
        self._real = real
        self._columns = columns
        self._traits = features.measure(real)

    def measure(self, sequences: Bytes) -> dict[str, float]:
        """Figures of sequences (T, F, H, W, 3); T is at least 2.

        frame_psnr (dB), acceleration, highlights and misfit (octaves) are Wasserstein distances from the reference;
        frechet and histogram are distances too. motion, difference and nearest are in grey levels; row_jump is a ratio.
        arrow is the share of the reference's time asymmetry: 1 as real, 0 none, -1 time runs backwards.
        """
        real, found = self._traits, features.measure(sequences)
        difference, nearest = _spread(sequences)
        return {
            "frame_psnr": wasserstein(real.psnr, found.psnr),
            "acceleration": wasserstein(real.acceleration, found.acceleration),
            "frechet": frechet(real.described, found.described, floor=_FLOORS),
            "histogram": total_variation(real.histogram, found.histogram),
            "highlights": wasserstein(real.highlights, found.highlights),
            "misfit": wasserstein(real.misfit, found.misfit),
            "row_jump": float(found.row_jump(self._columns).mean()),
            "motion": float(found.motion.mean()) * 255.0,
            "difference": difference,
            "nearest": nearest,
            "arrow": self._arrow(found.described),
        }

    def scale(self, count: int) -> dict[str, float]:
        """The reference's own figures where a limit is a share of them, as `count` sequences would show them."""
        count = min(count, len(self._real))
        starts = range(0, len(self._real) - count + 1, count)
        groups = np.array([_spread(self._real[start : start + count]) for start in starts])
        difference, nearest = groups.mean(axis=0)
        return {
            "motion": float(self._traits.motion.mean()) * 255.0,
            "difference": float(difference),
            "nearest": float(nearest),
        }

    def _arrow(self, described: Doubles) -> float:
        directed = self._traits.described[:, features.DIRECTED]
        spread = np.maximum(directed.std(axis=0), _FLOORS[features.DIRECTED])
        expected = directed.mean(axis=0) / spread
        found = described[:, features.DIRECTED].mean(axis=0) / spread
        return float(expected @ found / (expected @ expected))


def _spread(sequences: Bytes) -> tuple[float, float]:
    """Mean RMS difference between two sequences, and to the nearest other one, in grey levels."""
    distance = features.pairwise_difference(sequences[:, ::_STRIDE]) * 255.0
    count = len(distance)
    nearest = (distance + np.diag(np.full(count, np.inf))).min(axis=1)
    return float(distance.sum() / (count * (count - 1))), float(nearest.mean())
