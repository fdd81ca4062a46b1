"""Grids that came out mirrored, told by their seams and put right.

Training that flips whole grids left-right mirrors the frames and reverses time within each row: such a net draws
mirrored grids too. In a right one the last frame of a row and the first of the next are neighbours in time; in a
mirrored one those two are far apart, and it is the first of a row and the last of the next that are neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.7
"""A grid is mirrored if its reversed seams are shorter than this share of the others: noise alone flips nothing."""


def put_right(drawn: Tensor, *, k: int, known_rows: int = 0) -> Tensor:
    """(C, K*h, K*w), its rows of frames from `known_rows` on flipped left-right if they are mirrored.

    Known rows are right by themselves; the seam between the last of them and the first new one counts too.
    """
    height = drawn.shape[-2] // k * known_rows
    flipped = torch.cat([drawn[:, :height], drawn[:, height:].flip(-1)], dim=1)
    start = max(known_rows - 1, 0)
    forward, reverse = (_seams(one, k=k, start=start) for one in (drawn, flipped))
    return torch.where(reverse < MARGIN * forward, flipped, drawn)


def _seams(drawn: Tensor, *, k: int, start: int) -> Tensor:
    """Summed distance between each row's last frame and the next row's first, from row `start` on: a scalar."""
    channels, height, width = drawn.shape
    tiles = drawn.reshape(channels, k, height // k, k, width // k)
    last, first = tiles[:, start:-1, :, -1], tiles[:, start + 1 :, :, 0]  # each (C, rows, h, w)
    return (last - first).square().mean((0, 2, 3)).sqrt().sum()
