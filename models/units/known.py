"""Cells of a grid that are already drawn, as masks, and how they enter a net's input.

One mechanism serves out-painting, slow motion and a user's own first frames. Known cells enter clean where the net was
trained so, which it was on whole rows at the grid's beginning only; all others enter noised to the level of the step.
At the end all of them are restored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models import grid
from models.schedules import Level
from models.spec import BundleSpec, KnownRows


@dataclass(frozen=True, slots=True)
class Known:
    """Known cells of one grid; masks are (1, 1, S, S), true where they hold."""

    clean: Tensor
    """(1, C, S, S), anything where unknown."""
    as_is: Tensor
    """Cells that enter clean."""
    noised: Tensor
    """Cells that enter at the level of the step."""
    noise: Callable[[int], Tensor]
    """The noise of the known cells at the i-th query, (1, C, S, S)."""
    has_noised: bool
    """Whether any cell is noised: a clean prefix needs no noise drawn."""

    @classmethod
    def of(cls, cells: Mapping[int, Tensor], *, spec: BundleSpec, noise: Callable[[int], Tensor]) -> Known:
        """Cells (C, h, w) by their place in the grid; at least one."""
        count, blank = spec.grid**2, torch.zeros_like(next(iter(cells.values())))
        tiles = torch.stack([cells.get(place, blank) for place in range(count)])
        prefix = _clean_prefix(cells, spec=spec)
        noised = [place in cells and place >= prefix for place in range(count)]
        as_is = _mask([place < prefix for place in range(count)], like=tiles, k=spec.grid)
        mask = _mask(noised, like=tiles, k=spec.grid)
        return cls(grid.pack(tiles[None], k=spec.grid), as_is, mask, noise, any(noised))

    def impose(self, x: Tensor, level: Level, query: int) -> Tensor:
        """`x` as the net is to see it at this level."""
        if self.has_noised:
            x = torch.where(self.noised, level.alpha * self.clean + level.sigma * self.noise(query), x)
        return torch.where(self.as_is, self.clean, x)

    def restore(self, x: Tensor) -> Tensor:
        """The known cells themselves, and `x` elsewhere."""
        return torch.where(self.as_is | self.noised, self.clean, x)


def _clean_prefix(cells: Mapping[int, Tensor], *, spec: BundleSpec) -> int:
    """Cells in the whole known rows at the beginning, where the net takes them clean; else 0."""
    if spec.known_rows is not KnownRows.CLEAN_PREFIX:
        return 0
    first_unknown = next((place for place in range(spec.grid**2) if place not in cells), spec.grid**2)
    return first_unknown // spec.grid * spec.grid


def _mask(flags: list[bool], *, like: Tensor, k: int) -> Tensor:
    """One flag a cell -> (1, 1, S, S)."""
    marks = torch.tensor(flags, device=like.device)[None, :, None, None, None]
    return grid.pack(marks.expand(1, -1, 1, *like.shape[-2:]), k=k)
