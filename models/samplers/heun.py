"""Heun's method on the probability-flow ODE: Euler to the next level, then again with the mean of both slopes.

Second order; two evaluations a step, but one for the last, whose end is the clean image itself. The method depends on
the time that it steps in: here it is that of the rectified flow with the same signal-to-noise ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from models.samplers import Query, Sampling, StepNoise
from models.samplers.euler import advance
from models.schedules import Level


def sample(x: Tensor, *, levels: Sequence[Level], noise: StepNoise) -> Sampling:
    """2 * steps - 1 evaluations; draws no noise."""
    for here, there in pairwise(levels):
        clean = (yield Query(x, here)).clean
        if there.sigma:
            second = yield Query(advance(x, clean, here=here, there=there), there)
            # The mean of the slopes (y - clean) / t and (y' - clean') / t', written as one clean image to step to.
            clean = clean + _flow_time(here) / (2 * _flow_time(there)) * (second.clean - clean)
        x = advance(x, clean, here=here, there=there)
    return x


def _flow_time(level: Level) -> float:
    return level.sigma / (level.alpha + level.sigma)
