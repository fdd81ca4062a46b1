"""DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order with one evaluation a step.

The clean estimate is carried on linearly in log(alpha / sigma) from the last two. Steps are of first order where that
cannot be done, the first, the one after pure noise and the one to the clean image; and where it is more guess than
knowledge, over a step more than `LONGEST` times as long as the last. That is the lower order at the end which the
authors advise: on DDPM's schedule in linear spacing the step to time 0 is four times as long as the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from models.samplers import Query, Sampling, StepNoise, euler
from models.schedules import Level

LONGEST = 2.0
"""No even spacing has a longer step, but for DDPM's last in linear spacing."""

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
    growth = (there.log_ratio - here.log_ratio) / (here.log_ratio - earlier[0].log_ratio)
    return clean if growth > LONGEST else clean + growth / 2 * (clean - earlier[1])
