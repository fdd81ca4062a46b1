"""Frames as one NumPy stack without loss, 16 bits deep where they are: what medical and scientific tools read.

The archive holds `frames` and, where it is known, `value_range`: what the least and the greatest number that can be
stored stand for, so that value = low + stored / greatest * (high - low). Equal frames give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.media import Pixels

MEDIA_TYPE = "application/x-npz"


def encode(frames: Iterable[Pixels], *, value_range: tuple[float, float] | None = None) -> bytes:
    """At least one frame, (H, W, 3) or (H, W), of integers -> `frames` (n, H, W, 3) or (n, H, W), as they are."""
    arrays: dict[str, NDArray[Any]] = {"frames": np.stack(list(frames))}
    if value_range is not None:
        arrays["value_range"] = np.array(value_range)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[Any]:
    """The frames as stored."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        frames: NDArray[Any] = arrays["frames"]
        return frames
