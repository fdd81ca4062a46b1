"""The frames that a run draws from, by class, and where a clip among them begins.

Both kinds of data, rendered domains and decoded footage, are rows of frames cut into clips; they differ in how a place
is drawn, for clips of one length need no table. Frames stay on disk, mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.clips import Clips, open_clips
from models.data.footage import Footage
from models.train.recipe import Recipe

if TYPE_CHECKING:
    from models.train.latents import Encoding

Frames = NDArray[Any]
"""(n, h, w, C) uint8 or uint16."""


class Places(Protocol):
    """How clips lie in a row of frames."""

    def window(self, draws: np.random.Generator, *, length: int) -> int:
        """The first of `length` frames of one clip, any such with the same chance."""

    def frame(self, draws: np.random.Generator) -> int:
        """A frame, any with the same chance."""


@dataclass(frozen=True, slots=True)
class Even:
    """Clips of one length, one after another."""

    clips: int
    length: int

    def window(self, draws: np.random.Generator, *, length: int) -> int:
        start = int(draws.integers(self.length - length + 1))
        return int(draws.integers(self.clips)) * self.length + start

    def frame(self, draws: np.random.Generator) -> int:
        clip = int(draws.integers(self.clips))
        return clip * self.length + int(draws.integers(self.length))


@dataclass(frozen=True, slots=True, eq=False)
class Uneven:
    """Clips of any length."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, clips: Sequence[range]) -> Uneven:
        """Ranges of frames, each a clip."""
        return cls(np.array([clip.start for clip in clips]), np.array([len(clip) for clip in clips]))

    def window(self, draws: np.random.Generator, *, length: int) -> int:
        ends = np.maximum(0, self.lengths - length + 1).cumsum()
        place = int(draws.integers(ends[-1]))
        clip = int(np.searchsorted(ends, place, side="right"))
        return int(self.starts[clip]) + place - (int(ends[clip - 1]) if clip else 0)

    def frame(self, draws: np.random.Generator) -> int:
        return self.window(draws, length=1)


@dataclass(frozen=True, slots=True)
class Reel:
    """All frames of one class."""

    places: Places
    frames: Frames
    low: Frames | None = None
    """The same frames in the coarse size, for refinement from them."""


@dataclass(frozen=True, slots=True)
class Data:
    """A reel for each class; without classes one of everything."""

    reels: tuple[Reel, ...]
    encoding: Encoding | None = None
    """None: the net works on pixels."""

    def encoded(self, pixels: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """(B, C, S, S) as the net is to see it; with `noise` a sample where there is a choice."""
        return pixels if self.encoding is None else self.encoding(pixels, noise=noise)


def load(recipe: Recipe, folder: Path) -> Data:
    """Open the clips of a recipe's procedural domains, rendering into `folder` those that are missing."""
    return Data(tuple(_rendered(recipe, name, folder) for name in recipe.domains))


def of(recipe: Recipe, footage: Footage) -> Data:
    """A user's own sequences."""
    frames = [footage.frames[size] for size in recipe.sizes]
    return Data(tuple(Reel(Uneven.of(clips), *frames) for clips in footage.clips))


def _rendered(recipe: Recipe, name: str, folder: Path) -> Reel:
    clips = [open_clips(Clips(name, recipe.sequences, recipe.clip_frames, size), folder) for size in recipe.sizes]
    rows = [block.reshape(-1, *block.shape[2:]) for block in clips]
    return Reel(Even(recipe.sequences, recipe.clip_frames), *rows)
