"""What the gate is given: sequences of one class, real or generated.

Sequences are handed over one at a time, and of large frames only what is measured is kept: frames averaged to a small
size, and two figures taken at full size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.evaluate import features
from models.spec import Stage

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Drawn = Mapping[Stage, Bytes]
"""One sequence, real or generated: (F, H, W, 3) for each stage there is."""

REDUCED = 32
"""Side in pixels to which refined frames are averaged before their features are taken."""
KEPT = 64
"""The same of coarse frames, where they are larger than that."""


@dataclass(frozen=True)
class Refined:
    """Refined sequences, N px a side, as far as the gate needs them."""

    reduced: Bytes
    """(S, F, 32, 32, 3); smaller where N is."""
    steps: Doubles
    """(S, F - 1) RMS change from frame to frame at full size."""
    profile: Doubles
    """(2, N - 1) mean gradient over each line of full-size frames."""


@dataclass(frozen=True)
class Clips:
    """Sequences of one class: coarse ones (S, F, H, W, 3), and if there are any their refinements."""

    coarse: Bytes
    profile: Doubles
    """(2, N - 1) mean gradient over each line of full-size coarse frames."""
    refined: Refined | None = None


@dataclass(frozen=True)
class Refinement:
    """Single real frames, held out, and two ways to enlarge their coarse versions; (N, H, H, 3) each."""

    real: Bytes
    bicubic: Bytes
    refined: Bytes
    coarse_size: int


@dataclass(frozen=True)
class Material:
    """All that is judged of one class. Real sequences are none that nets were trained on."""

    reference: Clips
    held_out: Clips
    generated: Clips
    refinement: Refinement | None = None


@dataclass
class Tally:
    """Sequences as they come; `clips` is what was kept of them."""

    _coarse: list[Bytes] = field(default_factory=list)
    _profiles: dict[Stage, list[Doubles]] = field(default_factory=dict)
    _reduced: list[Bytes] = field(default_factory=list)
    _steps: list[Doubles] = field(default_factory=list)

    def add(self, drawn: Drawn) -> None:
        """One more; all are of one length and size."""
        self._coarse.append(reduced(drawn[Stage.COARSE], KEPT))
        for stage, frames in drawn.items():
            self._profiles.setdefault(stage, []).append(features.gradient_profile(frames))
        if Stage.REFINE in drawn:
            self._reduced.append(reduced(drawn[Stage.REFINE], REDUCED))
            self._steps.append(features.step_sizes(drawn[Stage.REFINE]))

    def clips(self) -> Clips:
        """Of at least one sequence."""
        profiles = {stage: np.asarray(np.mean(each, axis=0)) for stage, each in self._profiles.items()}
        refined = None
        if self._reduced:
            refined = Refined(np.stack(self._reduced), np.stack(self._steps), profiles[Stage.REFINE])
        return Clips(np.stack(self._coarse), profiles[Stage.COARSE], refined)


def collect(sequences: Iterable[Drawn]) -> Clips:
    """Clips of sequences, at least one."""
    tally = Tally()
    for drawn in sequences:
        tally.add(drawn)
    return tally.clips()


def reduced(frames: Bytes, largest: int) -> Bytes:
    """Frames (F, N, N, 3) averaged to at most `largest` pixels a side."""
    side = frames.shape[1]
    if side <= largest:
        return frames
    if side % largest == 0:
        return reduce_frames(frames, largest)
    boxed = (Image.fromarray(frame).resize((largest, largest), Image.Resampling.BOX) for frame in frames)
    return np.stack([np.asarray(frame) for frame in boxed])


def reduce_frames(frames: Bytes, size: int) -> Bytes:
    """Area mean of frames (F, N, N, 3), N a multiple of size: (F, size, size, 3)."""
    count, side = frames.shape[:2]
    if side % size:
        raise ValueError(f"frames of {side} px cannot be averaged to {size} px: not a multiple")
    factor = side // size
    sums = np.add.reduceat(frames.astype(np.uint32), np.arange(0, side, factor), axis=1)
    boxes = np.add.reduceat(sums, np.arange(0, side, factor), axis=2).reshape(count, size, size, 3)
    return np.asarray((boxes + factor * factor // 2) // (factor * factor), dtype=np.uint8)
