"""Distances between samples: how far generated figures lie from real ones.

Exact for finite samples, with no choice of bins or bandwidth. Each is zero for equal samples, and
symmetric but for `frechet`, whose first argument sets the scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def wasserstein(one: Doubles, other: Doubles) -> float:
    """1-Wasserstein distance of two samples of any sizes, in their own unit: the area between their
    distribution functions."""
    one, other = np.sort(one.ravel()), np.sort(other.ravel())
    points = np.sort(np.concatenate([one, other]))
    below_one = np.searchsorted(one, points[:-1], side="right") / len(one)
    below_other = np.searchsorted(other, points[:-1], side="right") / len(other)
    return float(np.sum(np.abs(below_one - below_other) * np.diff(points)))


def total_variation(one: Doubles, other: Doubles) -> float:
    """Total variation of two histograms, (B,) each with sum 1: 0 for equal, 1 for disjoint ones."""
    return float(0.5 * np.abs(one - other).sum())


def frechet(real: Doubles, other: Doubles, *, floor: float | Doubles) -> float:
    """Frechet distance of Gaussians fitted to features (N, D) and (M, D), in units of the real spread.

    Each feature is divided by its standard deviation over `real`, or by `floor`, one number or (D,), where
    that is larger: a feature which hardly varies in real data must not drown the others.
    """
    scale = np.maximum(real.std(axis=0), floor)
    one, two = real / scale, other / scale
    shift = one.mean(axis=0) - two.mean(axis=0)
    return float(shift @ shift) + _bures(_covariance(one), _covariance(two))


def gaussian_frechet(real: Doubles, other: Doubles) -> float:
    """Squared Frechet distance of Gaussians fitted to features (N, D) and (M, D), as FID and FVD are defined.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), unbiased covariances. The last trace is the sum of the singular values of
    A B^T, where A^T A = C1 and B^T B = C2: no root of a matrix is taken, so few samples of many dimensions do no harm.
    """
    shift = real.mean(axis=0) - other.mean(axis=0)
    one, two = _factor(real), _factor(other)
    cross = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    distance = float(shift @ shift) + float((one**2).sum() + (two**2).sum() - 2.0 * cross)
    return max(distance, 0.0)  # equal samples may come out a rounding error below it


def _factor(features: Doubles) -> Doubles:
    """R (min(N, D), D) with R^T R the unbiased covariance."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _covariance(features: Doubles) -> Doubles:
    centred = features - features.mean(axis=0)
    return np.asarray(centred.T @ centred / len(features))


def _bures(one: Doubles, two: Doubles) -> float:
    """tr(A + B - 2 (A^1/2 B A^1/2)^1/2) of two covariances."""
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ two @ root)
    return float(np.trace(one) + np.trace(two) - 2.0 * np.sqrt(np.maximum(cross, 0.0)).sum())
