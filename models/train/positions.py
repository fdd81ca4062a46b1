"""The initial contents of a coarse net's positional table.

DiT's own table says where a token is in the image; in an image of frames two other things matter: where in its frame
the token is, and which frame that is. Half of the features say the one, half the other. The table is trained on from
here, and the net stays a plain DiT.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frame_aware(width: int, *, tokens: int, grid: int) -> Tensor:
    """(1, tokens*tokens, width) for a square of `tokens` x `tokens` tokens that holds `grid` x `grid` frames.

    Features: column in the frame, row in the frame (a quarter of the width each), index of the frame (half).
    """
    side = tokens // grid
    row, column = torch.meshgrid(torch.arange(tokens), torch.arange(tokens), indexing="ij")
    frame = (row // side) * grid + column // side
    features = [
        _waves(column % side, width // 4, longest=2.0 * side),
        _waves(row % side, width // 4, longest=2.0 * side),
        _waves(frame, width - 2 * (width // 4), longest=2.0 * grid * grid),
    ]
    return torch.cat(features, dim=-1).reshape(1, tokens * tokens, width)


def _waves(position: Tensor, width: int, *, longest: float) -> Tensor:
    """(...,) -> (..., width): [sin | cos] at wave lengths from `longest` down to 2, evenly on a log scale."""
    steps = torch.linspace(0, 1, width // 2)
    lengths = longest * (2.0 / longest) ** steps
    angles = 2 * torch.pi * position[..., None] / lengths
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
