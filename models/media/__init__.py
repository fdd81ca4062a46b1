"""Pictures and files: one module a format, each with `encode` and, where it reads too, `decode`.

Frames are uint8 (H, W, 3) sRGB arrays; where 16 bits count, uint16 (H, W) grey ones, of which players and people are
shown the upper eight. Files hold no time stamps, so equal frames give equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Frame = NDArray[np.uint8]
"""(H, W, 3) sRGB."""
Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W, 3) of 8 bits, or (H, W) of 16."""


def pixels(frames: NDArray[np.float32], *, bits: int) -> Pixels:
    """(n, C, H, W) in [-1, 1] as a bundle of that depth shows them: (n, H, W, 3) of 8 bits or (n, H, W) of 16."""
    if bits == 16:
        grey = (np.clip(frames[:, 0].astype(np.float64), -1, 1) + 1) * 32767.5
        return np.ascontiguousarray(grey.round().astype(np.uint16))
    values = ((np.clip(frames, -1, 1) + 1) * np.float32(127.5)).round().astype(np.uint8)
    if values.shape[1] == 1:
        values = np.broadcast_to(values, (len(values), 3, *values.shape[2:]))
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))


def to_pixels(frames: Tensor, *, bits: int) -> Pixels:
    """The same of a tensor, wherever it is."""
    return pixels(frames.float().cpu().numpy(), bits=bits)


def to_uint8(frames: Tensor) -> NDArray[np.uint8]:
    """(n, C, H, W) in [-1, 1] -> (n, H, W, 3); one channel becomes three."""
    return to_pixels(frames, bits=8).astype(np.uint8, copy=False)


def viewable(frame: Pixels) -> Frame:
    """A frame of either depth as (H, W, 3) of 8 bits."""
    if frame.dtype == np.uint8:
        return frame.astype(np.uint8, copy=False)
    return np.repeat((frame >> 8).astype(np.uint8)[..., None], 3, axis=-1)


def to_unit(frames: NDArray[Any]) -> Tensor:
    """(..., h, w, C) uint8 or uint16 -> (..., C, h, w) float32 in [-1, 1]."""
    import torch

    half = np.iinfo(frames.dtype).max / 2
    values = np.ascontiguousarray(frames)
    # torch computes little with 16 bits without a sign
    stored = torch.from_numpy(values if values.dtype == np.uint8 else values.astype(np.int32))
    return stored.movedim(-1, -3).float() / half - 1
