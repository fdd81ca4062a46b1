"""Noise is a function of its key: equal keys, equal bits; other keys, independent normals."""

from __future__ import annotations

import math

import torch

from models.noise import NoiseKey, philox


def draw(seed: int, stream: str, step: int, *shape: int) -> torch.Tensor:
    return philox(seed)(NoiseKey(stream, step, shape))


def test_same_key_same_bits() -> None:
    assert torch.equal(draw(5, "coarse/0", 3, 4, 5), draw(5, "coarse/0", 3, 4, 5))


def test_the_shape_only_cuts_the_stream_of_a_key_differently() -> None:
    assert torch.equal(draw(1, "a", 0, 2, 6).reshape(-1), draw(1, "a", 0, 12))


def test_normal_and_independent_over_seed_stream_and_step() -> None:
    draws = torch.stack(
        [draw(seed, stream, step, 20_000) for seed in (0, 1, 2**53 - 1) for stream in ("a", "b") for step in (0, 1)]
    ).double()
    count = draws.shape[1]
    assert torch.allclose(draws.mean(1), torch.zeros(len(draws), dtype=torch.float64), atol=5 / math.sqrt(count))
    assert torch.allclose(draws.std(1), torch.ones(len(draws), dtype=torch.float64), atol=5 / math.sqrt(2 * count))
    correlations = torch.corrcoef(draws) - torch.eye(len(draws), dtype=torch.float64)
    assert correlations.abs().max() < 5 / math.sqrt(count)
    fourth = (draws**4).mean()
    assert abs(float(fourth) - 3.0) < 0.05


def test_bits_are_pinned() -> None:
    """The stream must not change between versions: jobs resume under a newer one."""
    assert draw(7, "coarse/0", 0, 4).tolist() == PINNED


PINNED = [-0.32824867963790894, -0.5323728322982788, 0.953993558883667, -0.037910494953393936]
