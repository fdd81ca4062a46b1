"""Ways to spoil sequences that a gate worth its name notices.

Each takes sequences (S, F, H, W, 3), a random generator and the number of frames in a grid row, returns spoiled copies
of the same shape, and is known by its own name. Reversal of time is the one that only a feature with a direction
can see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Corruption = Callable[[Bytes, np.random.Generator, int], Bytes]
_found: dict[str, Corruption] = {}
CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(_found)
"""Every corruption by name, in the order of definition."""

REVERSAL = "reversed_in_time"
"""The one that is no fault where real sequences look alike both ways."""


def _register(corruption: Corruption) -> Corruption:
    _found[corruption.__name__] = corruption
    return corruption


@_register
def shuffled(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """The right frames in a wrong order."""
    return np.stack([sequence[rng.permutation(len(sequence))] for sequence in sequences])


@_register
def swapped(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """Two frames of each sequence, a grid row or more apart, in each other's place."""
    out = sequences.copy()
    for sequence in out:
        one = int(rng.integers(1, len(sequence) - 1 - row))
        other = int(rng.integers(one + row, len(sequence) - 1))
        sequence[[one, other]] = sequence[[other, one]]
    return out


@_register
def frozen(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """The first frame for ever."""
    return np.repeat(sequences[:, :1], sequences.shape[1], axis=1)


@_register
def noisy(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """Gaussian noise of standard deviation 0.05, new in each frame."""
    return _bytes(sequences + rng.normal(0.0, 0.05 * 255.0, sequences.shape))


@_register
def blurred(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """A binomial blur of five pixels, along both axes."""
    out = sequences.astype(np.float64)
    for axis in (2, 3):
        for _ in range(2):
            ends = np.pad(out, [(0, 0)] * axis + [(1, 1)] + [(0, 0)] * (4 - axis), mode="edge")
            before, after = (np.take(ends, np.arange(out.shape[axis]) + shift, axis=axis) for shift in (0, 2))
            out = 0.25 * before + 0.5 * out + 0.25 * after
    return _bytes(out)


@_register
def faded(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """Every colour times 0.85."""
    return _bytes(sequences * 0.85)


@_register
def jumping(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """A shade of its own, of standard deviation 0.06 a channel, for each grid row."""
    count, frames = sequences.shape[:2]
    shades = rng.normal(0.0, 0.06 * 255.0, (count, -(-frames // row), 1, 1, 3))
    return _bytes(sequences + np.repeat(shades, row, axis=1)[:, :frames])


@_register
def repeated(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """One sequence over and over."""
    return np.repeat(sequences[int(rng.integers(len(sequences)))][None], len(sequences), axis=0)


@_register
def reversed_in_time(sequences: Bytes, rng: np.random.Generator, row: int) -> Bytes:
    """Last frame first."""
    return sequences[:, ::-1]


def _bytes(values: NDArray[np.floating]) -> Bytes:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)
