"""The laws that every procedural domain obeys, whatever it draws.

A frame is a function of the seed and its index alone; a small frame is a large one, averaged;
motion can be seen but followed; no two sequences are alike.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.data import domains

every_domain = pytest.mark.parametrize("name", domains.names())


@every_domain
@pytest.mark.parametrize("size", [16, 33, 128])
def test_frames_are_square_rgb_bytes(name: str, size: int) -> None:
    frames = domains.load(name).render(5, frames=3, size=size)
    assert frames.shape == (3, size, size, 3)
    assert frames.dtype == np.uint8


@every_domain
@pytest.mark.parametrize(("size", "frames"), [(16, 300), (128, 12)])
def test_a_frame_depends_on_the_seed_and_its_index_only(name: str, size: int, frames: int) -> None:
    domain = domains.load(name)
    whole = domain.render(3, frames=frames, size=size)
    np.testing.assert_array_equal(domain.render(3, frames=4, size=size, first=8), whole[8:12])
    np.testing.assert_array_equal(domain.render(3, frames=1, size=size, first=frames - 1), whole[-1:])


@every_domain
def test_a_small_frame_is_the_area_mean_of_a_large_one(name: str) -> None:
    domain = domains.load(name)
    decibels = []
    for seed in range(8):
        large = domain.render(seed, frames=4, size=128, first=17 * seed).astype(np.float64)
        small = domain.render(seed, frames=4, size=16, first=17 * seed)
        decibels.append(_psnr(large.reshape(4, 16, 8, 16, 8, 3).mean(axis=(2, 4)), small))
    assert min(decibels) >= 26.0
    assert np.mean(decibels) >= 30.0


@every_domain
def test_large_frames_hold_detail_that_small_ones_lack(name: str) -> None:
    large = domains.load(name).render(1, frames=2, size=128).astype(np.float64)
    boxes = large.reshape(2, 16, 8, 16, 8, 3)
    assert (boxes - boxes.mean(axis=(2, 4), keepdims=True)).std() > 4.0


@every_domain
def test_motion_is_visible_and_smooth(name: str) -> None:
    for seed in range(6):
        frames = domains.load(name).render(seed, frames=48, size=16).astype(np.float64)
        steps = np.diff(frames, axis=0)
        assert 20.0 < _psnr(frames[1:], frames[:-1]) < 40.0
        assert np.abs(np.diff(steps, axis=0)).mean() < 1.1 * np.abs(steps).mean()


@every_domain
def test_sequences_differ_clearly(name: str) -> None:
    clips = [domains.load(name).render(seed, frames=16, size=16) for seed in range(8)]
    for i, one in enumerate(clips):
        assert all(_psnr(one, other) < 26.0 for other in clips[:i])


def test_domains_are_found_by_file_name() -> None:
    assert {"balls", "lava", "scan", "sky"} <= set(domains.names())
    assert list(domains.names()) == sorted(domains.names())


def test_an_unknown_domain_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"lava.*sky"):
        domains.load("ocean")


def _psnr(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    error = one.astype(np.float64) - other.astype(np.float64)
    return float(10.0 * np.log10(255.0**2 / max(float((error**2).mean()), 1e-9)))
