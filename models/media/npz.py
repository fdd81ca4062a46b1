"""Frames as one NumPy stack without loss, 16 bits deep where they were: what medical and scientific tools read.

The archive holds `frames` and, of frames as a net draws them, `value_range`: what the least and the greatest stored
number stand for, so that stored = round((x - low) / (high - low) * greatest). Equal frames give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEDIA_TYPE = "application/x-npz"


class Depth(StrEnum):
    """What a stored number is; values are NumPy's names of types."""

    UINT8 = "uint8"
    UINT16 = "uint16"
    FLOAT32 = "float32"
    """As drawn, -1 to 1."""


def encode(frames: Iterable[NDArray[Any]], *, depth: Depth = Depth.UINT16) -> bytes:
    """At least one frame -> an archive of `frames`, (n, H, W, C), or (n, H, W) of one channel.

    Each is (H, W, C) or (H, W): floats in -1..1, brought to `depth`, or integers, which are kept as they are.
    """
    stack = np.stack([np.asarray(frame) for frame in frames])
    if stack.ndim == 4 and stack.shape[-1] == 1:
        stack = stack[..., 0]
    arrays: dict[str, NDArray[Any]] = {"frames": stack}
    if stack.dtype.kind == "f":
        arrays = {"frames": to_depth(stack, depth), "value_range": np.array([-1.0, 1.0])}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[Any]:
    """The frames as stored, (n, H, W, C) or (n, H, W)."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        frames: NDArray[Any] = arrays["frames"]
        return frames


def to_depth(values: NDArray[Any], depth: Depth) -> NDArray[Any]:
    """Floats in -1..1 (what lies beyond is cut off) -> numbers of that depth, -1 becoming 0 and 1 the greatest."""
    if depth is Depth.FLOAT32:
        return values.astype(np.float32)
    greatest = np.iinfo(depth.value).max
    return np.rint((values.astype(np.float64).clip(-1, 1) + 1) / 2 * greatest).astype(depth.value)
