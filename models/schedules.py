"""How image and noise are mixed at a time, and at which times a sampler looks.

x_t = alpha(t) x + sigma(t) eps. A schedule maps a time to (alpha, sigma); a prediction turns a net's output at a time
into the clean image it stands for. Times fall from noise to clean; a list of n + 1 times makes n steps, the last of
which lands on the clean image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from models.spec import Prediction, ScheduleName, Spacing


@dataclass(frozen=True, slots=True)
class Level:
    """One noise level: x_t = alpha x + sigma eps."""

    time: float
    alpha: float
    sigma: float


def flow_level(time: float) -> Level:
    """Rectified flow: alpha = 1 - t, sigma = t, for t in 0..1."""
    return Level(time, 1.0 - time, time)


def linear_level(time: float) -> Level:
    """DDPM's linear betas at the integer times 0..999; -1 is the clean image."""
    abar = _ALPHAS_BAR[round(time) + 1]
    return Level(time, math.sqrt(abar), math.sqrt(1.0 - abar))


def levels(schedule: ScheduleName, steps: int, *, spacing: Spacing = Spacing.LINEAR) -> tuple[Level, ...]:
    """`steps` + 1 levels from pure noise to the clean image."""
    if schedule is ScheduleName.FLOW:
        return tuple(flow_level(1.0 - i / steps) for i in range(steps + 1))
    times = [round(999 - i * 999 / max(steps - 1, 1)) for i in range(steps)]
    return tuple(linear_level(time) for time in [*times, -1])


def denoised(prediction: Prediction, x: Tensor, out: Tensor, level: Level) -> Tensor:
    """The clean image that a net's output at this level stands for; shapes are those of `x`.

    Of a residual it is the rest of the clean image: the caller adds the low-resolution frame.
    """
    return _DENOISED[prediction](x, out, level)


def _from_epsilon(x: Tensor, out: Tensor, level: Level) -> Tensor:
    return (x - level.sigma * out) / level.alpha


def _from_v(x: Tensor, out: Tensor, level: Level) -> Tensor:
    return (level.alpha * x - level.sigma * out) / (level.alpha**2 + level.sigma**2)


def _from_flow(x: Tensor, out: Tensor, level: Level) -> Tensor:
    return (x - level.sigma * out) / (level.alpha + level.sigma)


_DENOISED: dict[Prediction, Callable[[Tensor, Tensor, Level], Tensor]] = {
    Prediction.X: lambda _x, out, _level: out,
    Prediction.RESIDUAL: lambda _x, out, _level: out,
    Prediction.EPSILON: _from_epsilon,
    Prediction.V: _from_v,
    Prediction.FLOW: _from_flow,
}


def _alphas_bar() -> tuple[float, ...]:
    abar, table = 1.0, [1.0]
    for i in range(1000):
        abar *= 1.0 - (1e-4 + (2e-2 - 1e-4) * i / 999)
        table.append(abar)
    return tuple(table)


_ALPHAS_BAR = _alphas_bar()
"""abar at times -1 (clean), 0, .., 999."""
