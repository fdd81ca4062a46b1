"""A sequence model with a known answer: what a perfectly trained net would say, and what it should draw.

Every pixel is a stationary Gaussian process over frames, so the exact clean estimate is a matrix over the cells of a
grid. `ExactNet` answers as an imported net does (epsilon, learned variance, DDPM's schedule). What units draw with it
is wrong by the sampling alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import cache

import torch
from torch import Tensor

from models.grid import pack, unpack
from models.schedules import CLEAN_TIME, linear_level
from models.spec import BundleSpec, Defaults, KnownRows, NetSpec, Prediction, ScheduleName, Stage
from models.units import Evaluate

K = 4
CELLS = K * K
AMPLITUDES = (0.25, 0.15, 0.08)
"""Standard deviation of each channel: three spatial modes of a picture, as it were."""


class Kernel(StrEnum):
    """How frames d apart are correlated."""

    MATERN = "matern"
    """(1 + d/4) exp(-d/4): smooth motion."""
    EXPONENTIAL = "exponential"
    """exp(-d/8): a random walk that is pulled back."""
    GAUSSIAN = "gaussian"
    """exp(-d^2/18), a thousandth of it noise: hardly any freedom from frame to frame."""

    def covariance(self, frames: int) -> Tensor:
        """(frames, frames), double, of unit variance."""
        place = torch.arange(frames, dtype=torch.float64)
        apart = (place[:, None] - place).abs()
        if self is Kernel.MATERN:
            return (1 + apart / 4) * torch.exp(-apart / 4)
        if self is Kernel.EXPONENTIAL:
            return torch.exp(-apart / 8)
        return 0.999 * torch.exp(-apart.square() / 18) + 0.001 * torch.eye(frames, dtype=torch.float64)

    def draw(self, frames: int, *, side: int, generator: torch.Generator) -> Tensor:
        """(frames, C, side, side) of exactly this law."""
        white = torch.randn(frames, len(AMPLITUDES) * side**2, dtype=torch.float64, generator=generator)
        drawn = torch.linalg.cholesky(self.covariance(frames)) @ white
        scales = torch.tensor(AMPLITUDES, dtype=torch.float64)[:, None, None]
        scaled: Tensor = drawn.reshape(frames, len(AMPLITUDES), side, side) * scales
        return scaled.float()


class ExactNet:
    """The best possible net; with `prefix` the one whose first cells are known and enter clean."""

    device = torch.device("cpu")
    largest = 1
    buckets: tuple[int, ...] = (1,)
    caches = False

    def __init__(self, kernel: Kernel, *, prefix: int = 0) -> None:
        self._kernel, self._prefix = kernel, prefix

    def bucket(self, rows: int) -> int:
        """No padding."""
        return rows

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        """(1, C, S, S) -> (1, 2C, S, S): epsilon, then where the variance of a step lies between its bounds."""
        return tuple(self._answer(part.x, round(part.times[0])) for part in parts)

    def close(self) -> None:
        """There is nothing to give back."""

    def _answer(self, x: Tensor, time: int) -> Tensor:
        clean, fraction = _gains(self._kernel, self._prefix, time)
        cells, level = unpack(x, k=K)[0], linear_level(time)  # (16, C, h, w)
        estimate = torch.einsum("cij,jchw->ichw", clean, cells)
        epsilon = (cells - level.alpha * estimate) / level.sigma
        share = fraction.T[:, :, None, None].expand_as(cells)
        return torch.cat([pack(epsilon[None], k=K), pack(share[None], k=K)], dim=1)


@cache
def _gains(kernel: Kernel, prefix: int, time: int) -> tuple[Tensor, Tensor]:
    """For each channel: the clean estimate as a matrix (C, 16, 16), and the variance fraction of each cell (C, 16)."""
    pairs = [_gain(scale**2 * kernel.covariance(CELLS), prefix, time) for scale in AMPLITUDES]
    return torch.stack([gain for gain, _ in pairs]).float(), torch.stack([share for _, share in pairs]).float()


def _gain(covariance: Tensor, prefix: int, time: int) -> tuple[Tensor, Tensor]:
    """Conditioning on the clean prefix, then on the rest at this level: matrix (16, 16), fractions (16,)."""
    follows, spread = following(covariance, prefix)
    alpha, sigma = linear_level(time).alpha, linear_level(time).sigma
    noisy = alpha**2 * spread + sigma**2 * torch.eye(len(spread), dtype=torch.float64)
    update = torch.linalg.solve(noisy, alpha * spread).T
    gain = torch.eye(CELLS, dtype=torch.float64)
    gain[prefix:, :prefix] = follows - alpha * update @ follows
    gain[prefix:, prefix:] = update
    share = torch.zeros(CELLS, dtype=torch.float64)
    share[prefix:] = _fraction((spread - alpha * update @ spread).diagonal(), time)
    return gain, share


def _fraction(uncertainty: Tensor, time: int) -> Tensor:
    """What a net learns on the chain of all 1000 steps: the true variance of its step, on the scale of -1..1."""
    if time + CLEAN_TIME < 0:
        return torch.zeros_like(uncertainty)
    here, there = linear_level(time), linear_level(time - 1)
    upper = here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2
    lower = upper * (there.sigma / here.sigma) ** 2
    true = lower + (there.alpha * upper / here.sigma**2) ** 2 * uncertainty
    bound = torch.tensor(upper / lower, dtype=torch.float64)
    return (2 * torch.log(true / lower) / torch.log(bound) - 1).clamp(-1, 1)


def following(covariance: Tensor, known: int) -> tuple[Tensor, Tensor]:
    """The law of the other cells given the first: mean as a matrix (n - known, known), covariance."""
    inside, across = covariance[:known, :known], covariance[known:, :known]
    follows = torch.linalg.solve(inside, across.T).T
    return follows, covariance[known:, known:] - follows @ across.T


def spec_of(side: int, *, known_rows: KnownRows, overlap_rows: int) -> BundleSpec:
    """A bundle like the released one, of pixels instead of latents, with frames of `side` pixels."""
    net = NetSpec(
        file="none.safetensors",
        sha256="0" * 64,
        input_size=K * side,
        patch=side,
        in_channels=len(AMPLITUDES),
        out_channels=2 * len(AMPLITUDES),
        width=8,
        depth=1,
        heads=1,
        prediction=Prediction.EPSILON,
        learned_variance=True,
        schedule=ScheduleName.LINEAR,
        time_scale=1.0,
    )
    return BundleSpec(
        name="analytic",
        license="none",
        grid=K,
        coarse_size=side,
        refined_size=side,
        known_rows=known_rows,
        overlap_rows=overlap_rows,
        nets={Stage.COARSE: net},
        samplers=("ddpm",),
        defaults=Defaults(num_frames=1, fps=8, sampler="ddpm", coarse_steps=1, refine_steps=1, guidance_scale=1),
    )


def distance(frames: Tensor, kernel: Kernel) -> float:
    """How far (n, C, P), P draws of n frames, are from the law: Wasserstein-2 between the Gaussians, of its rms."""
    laws = [scale**2 * kernel.covariance(len(frames)) for scale in AMPLITUDES]
    found = [second_moment(frames[:, channel]) for channel in range(len(AMPLITUDES))]
    squares = [_wasserstein(one, other) for one, other in zip(found, laws, strict=True)]
    return math.sqrt(sum(squares) / sum(float(law.trace()) for law in laws))


def second_moment(frames: Tensor) -> Tensor:
    """(n, P) -> (n, n), double; the law's mean is zero, and a mean that is not is an error like any other."""
    frames = frames.double()
    return frames @ frames.T / frames.shape[1]


def _wasserstein(one: Tensor, other: Tensor) -> float:
    """The squared distance."""
    root = _root(other)
    return max(0.0, float(one.trace() + other.trace() - 2 * _root(root @ one @ root).trace()))


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return root
