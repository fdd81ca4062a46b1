"""Heun's method in exponential form: Euler to the next level, then again with the mean of both estimates.

Second order; two evaluations a step, but one for the last, whose end is the clean image itself.
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
        first = yield Query(x, here)
        ahead = advance(x, first.clean, here=here, there=there)
        if there.sigma > 0:
            corrected = yield Query(ahead, there)
            ahead = advance(x, (first.clean + corrected.clean) / 2, here=here, there=there)
        x = ahead
    return x
