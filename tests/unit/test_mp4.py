"""The video of a sequence follows from its frames alone, whatever the process did before."""

from __future__ import annotations

import numpy as np
import pytest

from models.media import mp4


@pytest.mark.parametrize("side", [8, 20, 32])
def test_equal_frames_give_equal_bytes(side: int) -> None:
    rng = np.random.default_rng(side)
    frames = [rng.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(32)]
    made = set()
    for _ in range(30):
        rng.bytes(int(rng.integers(100, 100_000)))  # memory that is used and freed, for what reads it without leave
        made.add(mp4.encode(frames, fps=8))
    assert len(made) == 1
