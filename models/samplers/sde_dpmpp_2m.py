"""SDE-DPM-Solver++(2M) (Lu et al. 2022, appendix): the second-order multistep solver of the diffusion SDE.

Its first-order step is the ancestral one; the second order carries the clean estimate on as DPM-Solver++(2M) does, and
is lowered at the same steps. The variance of a step follows from the SDE, so a learned one is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from models.samplers import Estimate, Query, Sampling, StepNoise, ddpm
from models.samplers.dpmpp_2m import Seen, ahead
from models.schedules import Level

STOCHASTIC = True
"""It draws fresh noise on the way."""


def sample(x: Tensor, *, levels: Sequence[Level], noise: StepNoise) -> Sampling:
    """len(levels) - 1 evaluations; a noise for each step but one that ends at the clean image."""
    earlier: Seen | None = None
    for step, (here, there) in enumerate(pairwise(levels)):
        estimate = yield Query(x, here)
        clean = ahead(estimate.clean, earlier, here=here, there=there)
        fresh = noise(step) if there.sigma else None
        x = ddpm.advance(x, Estimate(clean), here=here, there=there, noise=fresh)
        earlier = here, estimate.clean
    return x
