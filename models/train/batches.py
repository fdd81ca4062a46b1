"""What a net is shown at one step: clips cut, noised and labelled.

Every draw of step s comes from a generator seeded by (recipe seed, s), so the step number is the whole state of the
data: a run that is resumed sees what it would have seen. Known frames of a coarse grid enter clean but for a touch of
noise, which teaches the net to live with its own imperfect frames; so do low-resolution frames to be refined.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models import grid
from models.data.clips import Clips, open_clips
from models.spec import Stage
from models.train.recipe import Recipe

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows; `weight` is zero where the net's output is ignored."""

    x: Tensor
    """(B, C_in, S, S)."""
    times: Tensor
    """(B,) of the schedule, 0 (clean) to 1."""
    labels: Tensor
    """(B,); the number of classes is the null label."""
    clean: Tensor
    """(B, C, S, S)."""
    weight: Tensor
    """(B, 1, S, 1)."""

    @property
    def base(self) -> Tensor | float:
        """What the net's output is added to: the enlarged low-resolution frame, (B, C, S, S), where there is one."""
        channels = self.clean.shape[1]
        return self.x[:, channels:] if self.x.shape[1] > channels else 0.0

    @property
    def counted(self) -> int:
        """Numbers of `clean` that the loss is a mean over, at least 1."""
        _, channels, side, _ = self.clean.shape
        return max(1, round(float(self.weight.sum())) * channels * side)

    def split(self, parts: int) -> list[Batch]:
        """Its rows in `parts` batches of nearly one size."""
        fields = (self.x, self.times, self.labels, self.clean, self.weight)
        return [Batch(*part) for part in zip(*(field.tensor_split(parts) for field in fields), strict=True)]


@dataclass(frozen=True, slots=True)
class Data:
    """Clips by label: what is drawn, and for refinement what it is drawn from."""

    clips: tuple[Frames, ...]
    low: tuple[Frames, ...]


def load(recipe: Recipe, folder: Path) -> Data:
    """Open the recipe's clips, rendering into `folder` those that are missing."""

    def clips(size: int) -> tuple[Frames, ...]:
        wanted = (Clips(name, recipe.sequences, recipe.clip_frames, size) for name in recipe.domains)
        return tuple(open_clips(each, folder) for each in wanted)

    low = clips(recipe.coarse_size) if recipe.stage is Stage.REFINE else ()
    return Data(clips(recipe.frame_size), low)


def batch(recipe: Recipe, step: int, *, data: Data) -> Batch:
    """The rows of one step."""
    draws = np.random.default_rng((recipe.seed, step))
    noise = torch.Generator().manual_seed(int(draws.integers(2**63)))
    make = _coarse if recipe.stage is Stage.COARSE else _refine
    return make(recipe, data, draws, noise)


def to_unit(frames: Frames) -> Tensor:
    """(..., h, w, 3) uint8 -> (..., 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float() / 127.5 - 1


def enlarge(low: Tensor, size: int) -> Tensor:
    """(B, C, h, w) -> (B, C, size, size), as the refine unit does it."""
    return F.interpolate(low, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)


def _coarse(recipe: Recipe, data: Data, draws: np.random.Generator, noise: torch.Generator) -> Batch:
    length, labels = recipe.grid**2, _labels(recipe, draws)
    rows = [_window(data.clips[label], length, draws) for label in labels]
    clean = grid.pack(to_unit(np.stack(rows)), k=recipe.grid)
    times = _times(recipe, noise)
    known = _known(recipe, draws)  # (B, 1, S, 1)
    given = clean + _touch(recipe, noise) * _normal(clean, noise)
    x = torch.where(known, given, _mix(clean, times, noise))
    return Batch(x, times, _drop(recipe, labels, draws), clean, (~known).float())


def _refine(recipe: Recipe, data: Data, draws: np.random.Generator, noise: torch.Generator) -> Batch:
    labels = _labels(recipe, draws)
    places = [(int(draws.integers(recipe.sequences)), int(draws.integers(recipe.clip_frames))) for _ in labels]
    clean, low = (
        to_unit(np.stack([clips[label][place] for label, place in zip(labels, places, strict=True)]))
        for clips in (data.clips, data.low)
    )
    low = (low + _touch(recipe, noise) * _normal(low, noise)).clamp(-1, 1)
    times = _times(recipe, noise)
    x = torch.cat([_mix(clean, times, noise), enlarge(low, recipe.refined_size)], dim=1)
    weight = torch.ones(recipe.batch, 1, recipe.refined_size, 1)
    return Batch(x, times, _drop(recipe, labels, draws), clean, weight)


def _labels(recipe: Recipe, draws: np.random.Generator) -> NDArray[np.int64]:
    return draws.integers(len(recipe.domains), size=recipe.batch)


def _window(clips: Frames, length: int, draws: np.random.Generator) -> Frames:
    start = int(draws.integers(clips.shape[1] - length + 1))
    return np.asarray(clips[int(draws.integers(len(clips))), start : start + length])


def _known(recipe: Recipe, draws: np.random.Generator) -> Tensor:
    """(B, 1, S, 1), true in the rows that are given."""
    rows = draws.integers(1, recipe.grid, size=recipe.batch) * (draws.random(recipe.batch) < recipe.prefix_share)
    side = recipe.grid * recipe.coarse_size
    edge = torch.from_numpy(rows * recipe.coarse_size)[:, None, None, None]
    return torch.arange(side)[None, None, :, None] < edge


def _drop(recipe: Recipe, labels: NDArray[np.int64], draws: np.random.Generator) -> Tensor:
    dropped = draws.random(len(labels)) < recipe.label_dropout
    return torch.from_numpy(np.where(dropped, len(recipe.domains), labels))


def _times(recipe: Recipe, noise: torch.Generator) -> Tensor:
    return torch.sigmoid(torch.randn(recipe.batch, generator=noise) + recipe.time_mean)


def _touch(recipe: Recipe, noise: torch.Generator) -> Tensor:
    """(B, 1, 1, 1) standard deviations."""
    return recipe.low_noise * torch.rand(recipe.batch, 1, 1, 1, generator=noise)


def _mix(clean: Tensor, times: Tensor, noise: torch.Generator) -> Tensor:
    t = times[:, None, None, None]
    return (1 - t) * clean + t * _normal(clean, noise)


def _normal(like: Tensor, noise: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=noise)
