"""NPZ stacks: nothing is lost that the depth can hold, and equal frames give equal bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest

from models.media import npz
from models.media.npz import Depth

DRAWN = np.linspace(-1.2, 1.2, 2 * 3 * 4).reshape(2, 3, 4, 1).astype(np.float32)


def test_sixteen_bits_go_through_unchanged() -> None:
    frames = np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 2730
    stored = npz.decode(npz.encode(frames))
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, frames)


@pytest.mark.parametrize(("depth", "greatest"), [(Depth.UINT8, 255), (Depth.UINT16, 65535)])
def test_drawn_frames_are_rounded_to_the_nearest_value(depth: Depth, greatest: int) -> None:
    stored = npz.decode(npz.encode(DRAWN, depth=depth))
    assert (stored.shape, stored.dtype.name, int(stored.min()), int(stored.max())) == ((2, 3, 4), depth, 0, greatest)
    np.testing.assert_allclose(stored / greatest * 2 - 1, DRAWN[..., 0].clip(-1, 1), atol=1 / greatest + 1e-9)


def test_floats_stay_as_they_were_drawn() -> None:
    np.testing.assert_array_equal(npz.decode(npz.encode(DRAWN, depth=Depth.FLOAT32)), DRAWN[..., 0])


def test_equal_frames_give_equal_bytes_and_say_their_range() -> None:
    data = npz.encode(iter(DRAWN))
    assert data == npz.encode(DRAWN)
    with np.load(io.BytesIO(data)) as arrays:
        assert arrays["value_range"].tolist() == [-1.0, 1.0]


def test_colour_keeps_its_channels() -> None:
    assert npz.decode(npz.encode(np.zeros((2, 3, 4, 3), np.uint8))).shape == (2, 3, 4, 3)
