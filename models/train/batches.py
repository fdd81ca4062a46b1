"""What a net is shown at one step: clips cut, noised and labelled.

Every draw follows from (recipe seed, step), or from (recipe seed, step, row), so the step number is the whole state of
the data: a run that is resumed sees what it would have seen. Known frames of a coarse grid enter clean but for a touch
of noise, which teaches the net to live with its own imperfect frames; so do low-resolution frames to be refined.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import grid
from models.media import to_unit
from models.schedules import linear_level
from models.spec import ScheduleName, Stage
from models.train.data import Data
from models.train.degradation import degraded
from models.train.recipe import Degradation, Draws, Recipe
from models.units.refining import enlarge


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step; `weight` is zero where the net's output is ignored."""

    x: Tensor
    """(B, C_in, S, S)."""
    times: Tensor
    """(B,) of the schedule."""
    labels: Tensor
    """(B,); the number of classes is the null label."""
    clean: Tensor
    """(B, C, S, S)."""
    noise: Tensor
    """(B, C, S, S); x = alpha clean + sigma noise where the weight is 1."""
    alpha: Tensor
    """(B, 1, 1, 1)."""
    sigma: Tensor
    """(B, 1, 1, 1)."""
    weight: Tensor
    """(B, 1, S, 1)."""

    @property
    def noisy(self) -> Tensor:
        """The channels of `x` that are to be cleaned, (B, C, S, S)."""
        return self.x[:, : self.clean.shape[1]]

    @property
    def base(self) -> Tensor | float:
        """What a residual is added to: the enlarged low-resolution frame, (B, C, S, S), where there is one."""
        channels = self.clean.shape[1]
        return self.x[:, channels:] if self.x.shape[1] > channels else 0.0

    @property
    def counted(self) -> int:
        """Numbers of `clean` that the loss is a sum over."""
        _, channels, side, _ = self.clean.shape
        return round(float(self.weight.sum())) * channels * side

    def split(self, parts: int) -> list[Batch]:
        """Its rows in `parts` batches of nearly one size."""
        return [Batch(*part) for part in zip(*(field.tensor_split(parts) for field in self._tensors), strict=True)]

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self._tensors))

    @classmethod
    def joined(cls, batches: list[Batch]) -> Batch:
        """The rows of all."""
        return cls(*(torch.cat(tensors) for tensors in zip(*(each._tensors for each in batches), strict=True)))

    @property
    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def batch(recipe: Recipe, step: int, *, data: Data, rows: range | None = None) -> Batch:
    """The rows of one step, or some of them."""
    if recipe.draws is Draws.STEP:
        every = _Draw(recipe, data, recipe.batch, np.random.default_rng((recipe.seed, step))).batch()
        return every if rows is None else Batch(*(tensor[rows.start : rows.stop] for tensor in every._tensors))
    chosen = range(recipe.batch) if rows is None else rows
    seeds = ((recipe.seed, step, row) for row in chosen)
    return Batch.joined([_Draw(recipe, data, 1, np.random.default_rng(seed)).batch() for seed in seeds])


class _Draw:
    """`count` rows out of one generator. The order of the draws is part of every recipe: it must not change."""

    def __init__(self, recipe: Recipe, data: Data, count: int, draws: np.random.Generator) -> None:
        self.recipe, self.data, self.count, self.draws = recipe, data, count, draws
        self.noise = torch.Generator().manual_seed(int(draws.integers(2**63)))

    def batch(self) -> Batch:
        return self._coarse() if self.recipe.stage is Stage.COARSE else self._refine()

    def _coarse(self) -> Batch:
        length, labels = self.recipe.grid**2, self._labels()
        reels = [self.data.reels[label] for label in labels]
        starts = [reel.places.window(self.draws, length=length) for reel in reels]
        frames = np.stack([reel.frames[start : start + length] for reel, start in zip(reels, starts, strict=True)])
        pixels = grid.pack(to_unit(_flipped(frames, self._flips())), k=self.recipe.grid)
        clean = self.data.encoded(pixels, noise=self.noise)
        times = self._times()
        known = self._known()  # (B, 1, S, 1)
        given = clean + self._touch() * self._normal(clean)
        noise, alpha, sigma = self._normal(clean), *self._levels(times)
        x = torch.where(known, given, alpha * clean + sigma * noise)
        return Batch(x, times, self._dropped(labels), clean, noise, alpha, sigma, (~known).float())

    def _refine(self) -> Batch:
        recipe, labels = self.recipe, self._labels()
        reels = [self.data.reels[label] for label in labels]
        places = [reel.places.frame(self.draws) for reel in reels]
        frames = [reel.frames[place] for reel, place in zip(reels, places, strict=True)]
        small = [reel.low[place] for reel, place in zip(reels, places, strict=True) if reel.low is not None]
        flips = self._flips()
        pixels = to_unit(_flipped(np.stack(frames), flips))
        if recipe.degradation is Degradation.PUBLISHED:
            enlarged = degraded(pixels, coarse_size=recipe.coarse_size, noise=self.noise)
        else:
            low = to_unit(_flipped(np.stack(small), flips))
            low = (low + self._touch() * self._normal(low)).clamp(-1, 1)
            enlarged = enlarge(low, size=recipe.refined_size)
        clean, shown = self.data.encoded(pixels, noise=self.noise), self.data.encoded(enlarged)
        times = self._times()
        noise, alpha, sigma = self._normal(clean), *self._levels(times)
        x = torch.cat([alpha * clean + sigma * noise, shown], dim=1)
        weight = torch.ones(self.count, 1, clean.shape[-2], 1)
        return Batch(x, times, self._dropped(labels), clean, noise, alpha, sigma, weight)

    def _labels(self) -> NDArray[np.int64]:
        return self.draws.integers(len(self.data.reels), size=self.count)

    def _flips(self) -> NDArray[np.bool_]:
        """Which rows are mirrored; nothing is drawn where none ever is."""
        if not self.recipe.mirror:
            return np.zeros(self.count, dtype=np.bool_)
        return np.asarray(self.draws.random(self.count) < self.recipe.mirror)

    def _known(self) -> Tensor:
        """(B, 1, S, 1), true in the rows that are given."""
        recipe = self.recipe
        rows = self.draws.integers(1, recipe.grid, size=self.count)
        rows = rows * (self.draws.random(self.count) < recipe.prefix_share)
        side = recipe.coarse_size // recipe.downsample
        edge = torch.from_numpy(rows * side)[:, None, None, None]
        return torch.arange(recipe.grid * side)[None, None, :, None] < edge

    def _dropped(self, labels: NDArray[np.int64]) -> Tensor:
        dropped = self.draws.random(len(labels)) < self.recipe.label_dropout
        return torch.from_numpy(np.where(dropped, self.recipe.classes, labels))

    def _times(self) -> Tensor:
        if self.recipe.schedule is ScheduleName.LINEAR:
            return torch.randint(len(_LINEAR), (self.count,), generator=self.noise).float()
        return torch.sigmoid(torch.randn(self.count, generator=self.noise) + self.recipe.time_mean)

    def _levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, each (B, 1, 1, 1)."""
        if self.recipe.schedule is ScheduleName.LINEAR:
            alpha, sigma = _LINEAR[times.long()].unbind(-1)
        else:
            alpha, sigma = 1 - times, times
        return alpha[:, None, None, None], sigma[:, None, None, None]

    def _touch(self) -> Tensor:
        """(B, 1, 1, 1) standard deviations."""
        return self.recipe.low_noise * torch.rand(self.count, 1, 1, 1, generator=self.noise)

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.noise)


def _flipped(frames: NDArray[Any], flips: NDArray[np.bool_]) -> NDArray[Any]:
    """(B, ..., H, W, C): the frames of the chosen rows mirrored left to right, each in its place."""
    return (
        np.where(flips.reshape(-1, *[1] * (frames.ndim - 1)), frames[..., ::-1, :], frames) if flips.any() else frames
    )


_LINEAR = torch.tensor([[level.alpha, level.sigma] for level in map(linear_level, range(1000))])
"""(1000, 2): alpha and sigma at DDPM's times."""
