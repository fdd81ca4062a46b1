"""What kind of positional table a net has. Tables are always kept as they are: this only tells them apart.

"2-D": DiT's own, sines of the row and the column in the grid's picture. "3-D": every feature follows one axis of
(frame, row in the frame, column in the frame), and each axis has some; tokens may come in the picture's raster order or
frame after frame. Anything else, a learned table say, is "neither". Tables stored in half precision count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from models.nn.dit import sincos_2d

TOLERANCE = 1e-2
"""Of a feature, all of which lie in -1..1; bfloat16 is good for 4e-3."""


class Kind(StrEnum):
    """What the table's axes are."""

    PLANE = "2-D"
    FRAMES = "3-D"
    OTHER = "neither"


class Order(StrEnum):
    """How the tokens of a 3-D table are counted."""

    RASTER = "raster"
    """As the net sees them: through the picture of all frames, row by row."""
    FRAMES = "frames"
    """Frame after frame, which is not how the net sees them."""


@dataclass(frozen=True, slots=True)
class Table:
    """What was found; grid and order are those of a 3-D table."""

    kind: Kind
    grid: int | None = None
    order: Order | None = None

    def __str__(self) -> str:
        if self.kind is not Kind.FRAMES:
            return str(self.kind)
        counted = "in raster order" if self.order is Order.RASTER else "counted frame by frame"
        return f"{self.kind}, {self.grid} x {self.grid} frames {counted}"


def kind(table: Tensor) -> Table:
    """(T, D), T a square -> what kind it is."""
    table, side = table.float(), math.isqrt(len(table))
    if table.shape[1] % 4 == 0 and float((table - sincos_2d(table.shape[1], side)).abs().max()) <= TOLERANCE:
        return Table(Kind.PLANE)
    for grid in (k for k in range(2, 9) if side % k == 0 and side > k):
        for order in Order:
            if _follows_axes(_by_frames(table, grid, order)):
                return Table(Kind.FRAMES, grid, order)
    return Table(Kind.OTHER)


def _by_frames(table: Tensor, grid: int, order: Order) -> Tensor:
    """(T, D) -> (frames, rows, columns, D) for grid x grid frames."""
    small = math.isqrt(len(table)) // grid
    if order is Order.FRAMES:
        return table.reshape(grid * grid, small, small, -1)
    tiles = table.reshape(grid, small, grid, small, -1).transpose(1, 2)
    return tiles.reshape(grid * grid, small, small, -1)


def _follows_axes(cube: Tensor) -> bool:
    """Whether each feature varies along one axis at most, and each axis has features."""
    spread = torch.stack([(cube - cube.narrow(axis, 0, 1)).abs().amax(dim=(0, 1, 2)) for axis in range(3)])  # (3, D)
    varies = spread > TOLERANCE
    return bool((varies.sum(dim=0) <= 1).all() and varies.any(dim=1).all())
