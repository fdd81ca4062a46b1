"""The ancestral sampler of DDPM (Ho et al. 2020) between any two levels, with learned variance where the net has it.

Let alpha_ts = alpha_t / alpha_s and upper = sigma_t^2 - alpha_ts^2 sigma_s^2, the variance that the forward process
adds from s to t (Kingma et al. 2021, eq. 20 ff.). The step draws from q(x_s | x_t, clean). On DDPM's schedule `upper`
is the beta of the respaced chain. Nothing is divided by alpha_t, so a schedule may start at alpha 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from models.samplers import Estimate, Query, Sampling, StepNoise
from models.schedules import Level

STOCHASTIC = True
"""It draws fresh noise on the way."""


def sample(x: Tensor, *, levels: Sequence[Level], noise: StepNoise) -> Sampling:
    """len(levels) - 1 evaluations; a noise for each step but one that ends at the clean image."""
    for step, (here, there) in enumerate(pairwise(levels)):
        estimate = yield Query(x, here)
        x = advance(x, estimate, here=here, there=there, noise=noise(step) if there.sigma else None)
    return x


def advance(x: Tensor, estimate: Estimate, *, here: Level, there: Level, noise: Tensor | None) -> Tensor:
    """One step from `here` to the cleaner level `there`; without noise its mean.

    The mean of a step to the clean image is the estimate itself, and such a step adds no noise even if it is given.
    """
    ratio = here.alpha / there.alpha
    upper = here.sigma**2 - (ratio * there.sigma) ** 2
    shrink = (there.sigma / here.sigma) ** 2
    mean = ratio * shrink * x + there.alpha * upper / here.sigma**2 * estimate.clean
    if noise is None or not there.sigma:
        return mean
    lower = upper * shrink
    if estimate.variance is None:
        return mean + math.sqrt(lower) * noise
    return mean + _deviation(estimate.variance, lower=lower, upper=upper) * noise


def _deviation(fraction: Tensor, *, lower: float, upper: float) -> Tensor:
    """The learned standard deviation: log-linear between the bounds for -1..1 (Nichol & Dhariwal 2021, eq. 15).

    The published clipping of the lower bound concerns the last step alone, which adds no noise.
    """
    share = (fraction + 1) / 2
    return torch.exp(0.5 * (share * math.log(upper) + (1 - share) * math.log(lower)))
