"""What the gate is given: sequences of one class, real or generated.

Refined sequences are large, so only what is measured on them is kept: frames reduced to 32 px, and
two figures taken at full size. They can be handed over one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data import domains
from models.evaluate import features

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]

REDUCED = 32
"""Side in pixels to which refined frames are averaged before their features are taken."""


@dataclass(frozen=True)
class Refined:
    """Refined sequences, N px a side, as far as the gate needs them."""

    reduced: Bytes
    """(S, F, 32, 32, 3)"""
    steps: Doubles
    """(S, F - 1) RMS change from frame to frame at full size."""
    profile: Doubles
    """(2, N - 1) mean gradient over each line of full-size frames."""


@dataclass(frozen=True)
class Clips:
    """Sequences of one class: coarse ones (S, F, H, W, 3), and if there are any their refinements."""

    coarse: Bytes
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
    """All that is judged of one class. Real sequences come from seeds that training never saw."""

    reference: Clips
    held_out: Clips
    generated: Clips
    refinement: Refinement | None = None


def collect(coarse: Bytes, refined: Iterable[Bytes] | None = None) -> Clips:
    """Clips of coarse sequences (S, F, H, W, 3) and of refined ones, S arrays (F, N, N, 3)."""
    return Clips(coarse=coarse, refined=None if refined is None else _measure(refined))


def real_clips(name: str, *, sequences: int, frames: int, first_seed: int, coarse: int, refined: int | None) -> Clips:
    """Sequences of a procedural domain at the coarse and, unless that is None, at the refined size."""
    domain = domains.load(name)
    seeds = range(first_seed, first_seed + sequences)
    small = np.stack([domain.render(seed, frames=frames, size=coarse) for seed in seeds])
    if refined is None:
        return collect(small)
    return collect(small, (domain.render(seed, frames=frames, size=refined) for seed in seeds))


def reduce_frames(frames: Bytes, size: int) -> Bytes:
    """Area mean of frames (F, N, N, 3), N a multiple of size: (F, size, size, 3)."""
    count, side = frames.shape[:2]
    if side % size:
        raise ValueError(f"frames of {side} px cannot be averaged to {size} px: not a multiple")
    factor = side // size
    sums = np.add.reduceat(frames.astype(np.uint32), np.arange(0, side, factor), axis=1)
    boxes = np.add.reduceat(sums, np.arange(0, side, factor), axis=2).reshape(count, size, size, 3)
    return np.asarray((boxes + factor * factor // 2) // (factor * factor), dtype=np.uint8)


def _measure(refined: Iterable[Bytes]) -> Refined:
    reduced, steps, profiles = [], [], []
    for sequence in refined:
        reduced.append(reduce_frames(sequence, REDUCED))
        steps.append(features.step_sizes(sequence))
        profiles.append(features.gradient_profile(sequence))
    return Refined(reduced=np.stack(reduced), steps=np.stack(steps), profile=np.mean(profiles, axis=0))
