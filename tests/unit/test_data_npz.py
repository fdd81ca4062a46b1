"""NPZ stacks: no loss, equal bytes for equal frames, and what the numbers stand for."""

from __future__ import annotations

import io

import numpy as np
import pytest

from models.media import npz


@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (3, 4, 5, 3)), (np.uint16, (3, 4, 5))])
def test_frames_come_back_as_they_were(dtype: type, shape: tuple[int, ...]) -> None:
    frames: np.ndarray = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    stored = npz.decode(npz.encode(frames))
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, frames)


def test_equal_frames_give_equal_bytes_and_others_other_ones() -> None:
    frames = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    assert npz.encode(iter(frames)) == npz.encode(frames)
    assert npz.encode(frames) != npz.encode(frames[::-1])


def test_what_the_numbers_stand_for_is_told() -> None:
    with np.load(io.BytesIO(npz.encode(np.zeros((1, 2, 2), np.uint16), value_range=(-1000.0, 400.0)))) as archive:
        assert archive["value_range"].tolist() == [-1000.0, 400.0]
