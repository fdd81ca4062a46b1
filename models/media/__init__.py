"""Pictures and files: one module a format, each with `encode` and, where it reads too, `decode`.

Frames are uint8 (H, W, 3) sRGB arrays. Files hold no time stamps, so equal frames give equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Frame = NDArray[np.uint8]
"""(H, W, 3) sRGB."""


def to_uint8(frames: Tensor) -> NDArray[np.uint8]:
    """(n, C, H, W) in [-1, 1] -> (n, H, W, 3); one channel becomes three."""
    pixels = ((frames.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


def from_uint8(frames: NDArray[np.uint8]) -> Tensor:
    """(n, H, W, 3) -> (n, 3, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1).float() / 127.5 - 1
