"""What a sequence is like from frame to frame: the numbers that seam and drift curves are made of.

One sequence at a time, so that long refined ones need not be kept. Levels are in grey levels (0..255); a window's
description has the features of `models.evaluate.features`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evaluate import features
from models.evaluate.material import REDUCED, reduced

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]

WINDOW = 16
"""Frames of a window that is described as a whole."""
LEVELS = {
    "brightness": "mean luminance, grey levels",
    "contrast": "spread of luminance, grey levels",
    "colourfulness": "mean of max - min channel, grey levels",
    "sharpness": "mean gradient, grey levels a pixel",
}
"""What is followed over the frames, each with its unit."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Traces:
    """S sequences of F frames, in W windows."""

    steps: Doubles
    """(S, F - 1): RMS change from frame to frame, grey levels."""
    levels: Doubles
    """(S, F, len(LEVELS))."""
    windows: Doubles
    """(S, W, D): descriptions of neighbouring windows."""

    @property
    def frames(self) -> int:
        """F."""
        return int(self.levels.shape[1])


@dataclass
class TraceTally:
    """Sequences as they come, all of one length."""

    _parts: list[tuple[Doubles, Doubles, Doubles]] = field(default_factory=list)

    def add(self, sequence: Bytes) -> None:
        """One more: (F, H, W, 3), F at least `WINDOW`."""
        self._parts.append(_trace(sequence))

    def traces(self) -> Traces:
        """Of at least one sequence."""
        steps, levels, windows = (np.stack(part) for part in zip(*self._parts, strict=True))
        return Traces(steps, levels, windows)


def _trace(sequence: Bytes) -> tuple[Doubles, Doubles, Doubles]:
    small = reduced(sequence, REDUCED)
    starts = range(0, len(small) - WINDOW + 1, WINDOW)
    windows = features.measure(np.stack([small[start : start + WINDOW] for start in starts])).described
    return features.step_sizes(sequence) * 255.0, np.stack([_levels(frame) for frame in sequence]), windows


def _levels(frame: Bytes) -> Doubles:
    """(len(LEVELS),) of one frame (H, W, 3)."""
    colour = frame.astype(np.float32)
    grey = colour @ _LUMINANCE
    slopes = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    spread = colour.max(axis=-1) - colour.min(axis=-1)
    return np.array([grey.mean(), grey.std(), spread.mean(), np.mean(slopes)], dtype=np.float64)
