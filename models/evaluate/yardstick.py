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
_SURE = 2.0
"""Standard errors."""
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
        return self._figures(features.measure(sequences), self._spread_of(sequences))

    def measured_by(self, held_out: Bytes) -> tuple[dict[str, float], dict[str, float]]:
        """The other way round: figures of the reference held against these, and the scale for them."""
        other = Yardstick(held_out, columns=self._columns)
        return other._figures(self._traits, other._spread_of(self._real)), other.scale(len(self._real))

    def directed(self, held_out: Bytes) -> bool:
        """Whether real sequences tell one way of time from the other: the arrow of these is sure to be above 0."""
        arrows = np.array([self._arrow(one[None]) for one in features.measure(held_out).described])
        return bool(arrows.mean() > _SURE * arrows.std(ddof=1) / np.sqrt(len(arrows)))

    def _spread_of(self, sequences: Bytes) -> tuple[float, float]:
        """In groups no larger than the reference: of more sequences the nearest would be nearer."""
        return _spread(sequences, min(len(sequences), len(self._real)))

    def _figures(self, found: features.Traits, spread: tuple[float, float]) -> dict[str, float]:
        real, (difference, nearest) = self._traits, spread
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
        difference, nearest = _spread(self._real, min(count, len(self._real)))
        return {
            "motion": float(self._traits.motion.mean()) * 255.0,
            "difference": difference,
            "nearest": nearest,
        }

    def _arrow(self, described: Doubles) -> float:
        directed = self._traits.described[:, features.DIRECTED]
        spread = np.maximum(directed.std(axis=0), _FLOORS[features.DIRECTED])
        expected = directed.mean(axis=0) / spread
        found = described[:, features.DIRECTED].mean(axis=0) / spread
        return float(expected @ found / (expected @ expected))


def _spread(sequences: Bytes, count: int) -> tuple[float, float]:
    """Mean RMS difference between two of `count` sequences, and to the nearest other one, in grey levels."""
    starts = range(0, len(sequences) - count + 1, count)
    groups = np.array([_spread_of_group(sequences[start : start + count]) for start in starts])
    difference, nearest = groups.mean(axis=0)
    return float(difference), float(nearest)


def _spread_of_group(sequences: Bytes) -> tuple[float, float]:
    distance = features.pairwise_difference(sequences[:, ::_STRIDE]) * 255.0
    count = len(distance)
    nearest = (distance + np.diag(np.full(count, np.inf))).min(axis=1)
    return float(distance.sum() / (count * (count - 1))), float(nearest.mean())
