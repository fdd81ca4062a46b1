"""Grids of frames: packing, and which frames of a sequence each grid holds.

A K x K grid is one image of K*K consecutive frames, row-major. A sequence longer than that is a row of grids, each of
which starts with the last R rows of the one before: grid m holds the frames m*K*(K-R) .. m*K*(K-R) + K*K - 1, of which
all but the first grid's are new from row R on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only shapes are moved here: who plans need not wait for torch
    from torch import Tensor


def pack(frames: Tensor, *, k: int) -> Tensor:
    """(B, K*K, C, h, w) -> (B, C, K*h, K*w), row-major."""
    batch, _, channels, height, width = frames.shape
    tiles = frames.reshape(batch, k, k, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(batch, channels, k * height, k * width)


def unpack(grid: Tensor, *, k: int) -> Tensor:
    """(B, C, K*h, K*w) -> (B, K*K, C, h, w), row-major."""
    batch, channels, height, width = grid.shape
    tiles = grid.reshape(batch, channels, k, height // k, k, width // k).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(batch, k * k, channels, height // k, width // k)


def count(num_frames: int, *, k: int, overlap: int) -> int:
    """Grids that hold `num_frames` frames when neighbours share `overlap` rows."""
    beyond = max(0, num_frames - k * k)
    return 1 + -(-beyond // (k * (k - overlap)))


def first_frame(index: int, *, k: int, overlap: int) -> int:
    """Place in the sequence of grid `index`'s first frame."""
    return index * k * (k - overlap)


def new_frames(index: int, num_frames: int, *, k: int, overlap: int) -> range:
    """Frames of the sequence that grid `index` is the first to hold, cut to `num_frames`."""
    start = first_frame(index, k=k, overlap=overlap)
    fresh = start + (k * overlap if index else 0)
    return range(fresh, min(start + k * k, num_frames))


def holder(frame: int, *, k: int, overlap: int) -> int:
    """The grid that is the first to hold frame `frame` of the sequence."""
    return max(0, frame - k * overlap) // (k * (k - overlap)) if frame >= k * k else 0
