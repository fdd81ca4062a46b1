"""DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order with one evaluation a step.

The clean estimate is carried on linearly in log(alpha / sigma) from the last two. It needs two estimates at finite
ratios, so the first step and the one after pure noise are of first order, and so is a step to the clean image, where
the ratio is infinite: the lower order at the end that the authors advise for few steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from models.samplers import Query, Sampling, StepNoise, euler
from models.schedules import Level

Seen = tuple[Level, Tensor]
"""The clean estimate that was made at a level."""


def sample(x: Tensor, *, levels: Sequence[Level], noise: StepNoise) -> Sampling:
    """len(levels) - 1 evaluations; draws no noise."""
    earlier: Seen | None = None
    for here, there in pairwise(levels):
        estimate = yield Query(x, here)
        clean = ahead(estimate.clean, earlier, here=here, there=there)
        x = euler.advance(x, clean, here=here, there=there)
        earlier = here, estimate.clean
    return x


def ahead(clean: Tensor, earlier: Seen | None, *, here: Level, there: Level) -> Tensor:
    """The clean estimate half a step on: `clean` was made `here`, `earlier` at the level before."""
    if earlier is None or not (earlier[0].alpha and there.sigma):
        return clean
    weight = (there.log_ratio - here.log_ratio) / (2 * (here.log_ratio - earlier[0].log_ratio))
    return clean + weight * (clean - earlier[1])
