"""Contact sheets: sequences laid out in one picture, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.media import Frame

_GAP = 4


def contact_sheet(sequences: Sequence[NDArray[np.uint8]], *, columns: int, scale: int = 1) -> Frame:
    """Sequences (F, h, w, 3) of one frame size, each in rows of `columns` frames, a gap between sequences."""
    return np.ascontiguousarray(np.concatenate([_rows(frames, columns, scale) for frames in sequences])[:-_GAP])


def _rows(frames: NDArray[np.uint8], columns: int, scale: int) -> Frame:
    count, height, width, _ = frames.shape
    lines = -(-count // columns)
    padded = np.full((lines * columns, height, width, 3), 255, dtype=np.uint8)
    padded[:count] = frames
    tiles = padded.reshape(lines, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    picture = tiles.reshape(lines * height, columns * width, 3).repeat(scale, axis=0).repeat(scale, axis=1)
    return np.concatenate([picture, np.full((_GAP, columns * width * scale, 3), 255, dtype=np.uint8)])
