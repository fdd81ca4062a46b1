"""How image and noise are mixed at a time, and at which times a sampler looks.

x_t = alpha(t) x + sigma(t) eps. A schedule maps a time to (alpha, sigma); a prediction turns a net's output at a time
into the clean image it stands for. Times fall from noise to clean; a list of n + 1 times makes n steps, the last of
which lands on the clean image.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise, repeat

import torch
from torch import Tensor

from models.spec import Prediction, ScheduleName, Spacing

LINEAR_TIMES = 1000
"""DDPM's times are the integers 0..999."""
CLEAN_TIME = -1
"""What stands for the clean image among them."""


@dataclass(frozen=True, slots=True)
class Level:
    """One noise level: x_t = alpha x + sigma eps."""

    time: float
    alpha: float
    sigma: float

    @property
    def log_ratio(self) -> float:
        """log(alpha / sigma), half the log-SNR: -inf for pure noise, inf for the clean image."""
        if not self.alpha:
            return -math.inf
        return math.log(self.alpha / self.sigma) if self.sigma else math.inf


class StepsOutOfRange(ValueError):
    """A schedule has no such number of different times."""

    def __init__(self, schedule: ScheduleName, steps: int) -> None:
        most = f"1 to {LINEAR_TIMES}" if schedule is ScheduleName.LINEAR else "1 or more"
        super().__init__(f"steps: found {steps}, but the {schedule.value} schedule has times for {most}; ask for those")
        self.schedule, self.steps = schedule, steps


def flow_level(time: float) -> Level:
    """Rectified flow: alpha = 1 - t, sigma = t, for t in 0..1."""
    return Level(time, 1.0 - time, time)


def linear_level(time: float) -> Level:
    """DDPM's linear betas at the integer times 0..999; CLEAN_TIME, -1, is the clean image."""
    abar = _ALPHAS_BAR[round(time) - CLEAN_TIME]
    return Level(time, math.sqrt(abar), math.sqrt(1.0 - abar))


@lru_cache(maxsize=64)
def levels(schedule: ScheduleName, steps: int, *, spacing: Spacing = Spacing.LINEAR) -> tuple[Level, ...]:
    """`steps` + 1 levels from pure noise to the clean image; StepsOutOfRange where there are not so many times.

    Flow: linear and trailing are one. Log-SNR spans what DDPM's schedule spans, and begins at pure noise itself.
    """
    if steps < 1 or (schedule is ScheduleName.LINEAR and steps > LINEAR_TIMES):
        raise StepsOutOfRange(schedule, steps)
    if schedule is ScheduleName.FLOW:
        return tuple(flow_level(time) for time in [*_FLOW_TIMES[spacing](steps), 0.0])
    return tuple(linear_level(time) for time in [*_LINEAR_TIMES[spacing](steps), CLEAN_TIME])


def denoised(prediction: Prediction, x: Tensor, out: Tensor, level: Level) -> Tensor:
    """The clean image that a net's output at this level stands for; shapes are those of `x`.

    Of a residual it is the rest of the clean image: the caller adds the low-resolution frame.
    """
    return _DENOISED[prediction](x, out, level)


def _even(steps: int) -> list[float]:
    return [1.0 - i / steps for i in range(steps)]


def _even_in_log_snr(steps: int) -> list[float]:
    # The first is moved to pure noise, which is what a sampler starts from.
    return [1.0, *(1.0 / (1.0 + math.exp(ratio)) for ratio in _log_ratios(steps)[1:])]


def _published(steps: int) -> list[int]:
    if steps == 1:
        return [LINEAR_TIMES - 1]
    # Added up, as the published code does it: where a time falls on a half, the sum's rounding decides.
    stride = (LINEAR_TIMES - 1) / (steps - 1)
    return [round(time) for time in accumulate(repeat(stride, steps - 1), initial=0.0)][::-1]


def _trailing(steps: int) -> list[int]:
    return [round(LINEAR_TIMES - i * LINEAR_TIMES / steps) - 1 for i in range(steps)]


def _nearest_to_log_snr(steps: int) -> list[int]:
    """The integer times nearest to even steps of log(alpha / sigma), moved apart where two would be one."""
    falling = [-linear_level(time).log_ratio for time in range(LINEAR_TIMES)]
    midway = [(one + other) / 2 for one, other in pairwise(falling)]
    times = [bisect(midway, -ratio) for ratio in _log_ratios(steps)]
    floor = -1
    for i in reversed(range(steps)):
        floor = times[i] = min(max(times[i], floor + 1), LINEAR_TIMES - 1 - i)
    return times


def _log_ratios(steps: int) -> list[float]:
    """Evenly from that of DDPM's noisiest time to that of its cleanest; of one step the first alone."""
    first, last = linear_level(LINEAR_TIMES - 1).log_ratio, linear_level(0).log_ratio
    return [first + (last - first) * i / max(steps - 1, 1) for i in range(steps)]


def _from_epsilon(x: Tensor, out: Tensor, level: Level) -> Tensor:
    if not level.alpha:
        return torch.zeros_like(x)  # the noise of pure noise says nothing of the image: the middle of its range
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
    for i in range(LINEAR_TIMES):
        abar *= 1.0 - (1e-4 + (2e-2 - 1e-4) * i / (LINEAR_TIMES - 1))
        table.append(abar)
    return tuple(table)


_ALPHAS_BAR = _alphas_bar()
"""abar at times -1 (clean), 0, .., 999."""

_FLOW_TIMES: dict[Spacing, Callable[[int], list[float]]] = {
    Spacing.LINEAR: _even,
    Spacing.TRAILING: _even,
    Spacing.LOG_SNR: _even_in_log_snr,
}
_LINEAR_TIMES: dict[Spacing, Callable[[int], list[int]]] = {
    Spacing.LINEAR: _published,
    Spacing.TRAILING: _trailing,
    Spacing.LOG_SNR: _nearest_to_log_snr,
}
