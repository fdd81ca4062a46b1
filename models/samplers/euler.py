"""Euler's method on the probability-flow ODE, one evaluation a step; on DDPM's schedule it is DDIM (eta 0)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from models.samplers import Query, Sampling, StepNoise
from models.schedules import Level


def sample(x: Tensor, *, levels: Sequence[Level], noise: StepNoise) -> Sampling:
    """len(levels) - 1 evaluations; draws no noise."""
    for here, there in pairwise(levels):
        estimate = yield Query(x, here)
        x = advance(x, estimate.clean, here=here, there=there)
    return x


def advance(x: Tensor, clean: Tensor, *, here: Level, there: Level) -> Tensor:
    """Move from one level to the next along the line through `x` and the clean image."""
    ratio = there.sigma / here.sigma
    return ratio * x + (there.alpha - ratio * here.alpha) * clean
