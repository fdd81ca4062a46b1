"""Cells of a grid that are already drawn, as masks, and how they enter a net's input.

One mechanism serves out-painting, slow motion and a user's own first frames. Known cells enter clean at every step
where the net was trained so (it was on whole rows at the beginning of a grid; scattered cells measured better clean
than noised too), and else noised to the level of the step. At the end they are restored.
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
    """Known cells of one grid."""

    clean: Tensor
    """(1, C, S, S), anything where unknown."""
    mask: Tensor
    """(1, 1, S, S), true where known."""
    noise: Callable[[int], Tensor] | None
    """The noise of the known cells at the i-th query, (1, C, S, S); None: they enter clean."""

    @classmethod
    def of(cls, cells: Mapping[int, Tensor], *, spec: BundleSpec, noise: Callable[[int], Tensor]) -> Known:
        """Cells (C, h, w) by their place in the grid; at least one."""
        count, blank = spec.grid**2, torch.zeros_like(next(iter(cells.values())))
        tiles = torch.stack([cells.get(place, blank) for place in range(count)])
        marks = torch.tensor([place in cells for place in range(count)], device=blank.device)
        mask = grid.pack(marks[None, :, None, None, None].expand(1, -1, 1, *blank.shape[-2:]), k=spec.grid)
        noised = spec.known_rows is KnownRows.REPLACEMENT
        return cls(grid.pack(tiles[None], k=spec.grid), mask, noise if noised else None)

    def impose(self, x: Tensor, level: Level, query: int) -> Tensor:
        """`x` as the net is to see it at this level."""
        if self.noise is None:
            return self.restore(x)
        return torch.where(self.mask, level.alpha * self.clean + level.sigma * self.noise(query), x)

    def restore(self, x: Tensor) -> Tensor:
        """The known cells themselves, and `x` elsewhere."""
        return torch.where(self.mask, self.clean, x)
