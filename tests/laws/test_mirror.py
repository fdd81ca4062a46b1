"""Mirrored grids are told by their seams: a moving picture with a known right reading is the oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models import grid
from models.data import domains
from models.units.mirror import put_right

K = 4


def moving(seed: int, *, domain: str = "lava", first: int = 0) -> Tensor:
    """A real sequence as a grid (C, S, S)."""
    frames = domains.load(domain).render(seed, frames=first + K * K, size=16)[first:]
    return grid.pack(torch.from_numpy(frames).movedim(-1, 1).float()[None] / 127.5 - 1, k=K)[0]


@pytest.mark.parametrize("domain", ["lava", "sky", "balls"])
@pytest.mark.parametrize("seed", range(4))
def test_a_mirrored_grid_is_put_right_and_a_right_one_is_left_alone(domain: str, seed: int) -> None:
    right = moving(seed, domain=domain)
    assert torch.equal(put_right(right, k=K), right)
    assert torch.equal(put_right(right.flip(-1), k=K), right)


@pytest.mark.parametrize("known_rows", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_known_rows_stay_and_new_ones_are_turned_towards_them(seed: int, known_rows: int) -> None:
    right, edge = moving(seed), known_rows * 16
    mirrored = torch.cat([right[:, :edge], right[:, edge:].flip(-1)], dim=1)
    assert torch.equal(put_right(mirrored, k=K, known_rows=known_rows), right)
    assert torch.equal(put_right(right, k=K, known_rows=known_rows), right)


@given(seed=st.integers(0, 1000))
def test_noise_and_stillness_are_left_alone(seed: int) -> None:
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(seed))
    still = noise[:, :16, :16].tile(1, K, K)
    assert torch.equal(put_right(noise, k=K), noise)
    assert torch.equal(put_right(still, k=K), still)


def test_all_rows_known_leaves_nothing_to_turn() -> None:
    grid_ = moving(0).flip(-1)
    assert torch.equal(put_right(grid_, k=K, known_rows=K), grid_)
