"""What training makes small: the squared error of what the net predicts, and the bound that a learned variance needs.

Clean images and residuals are weighed by 1 / max(sigma, smallest_time)^2, which makes their error that of the velocity;
noise, v and flow are compared as they are. A learned variance is trained with the variational bound alone (Nichol &
Dhariwal 2021, sec. 3.1): the net's mean enters it detached, in bits per number, with the published weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.engine import Precision
from models.schedules import linear_level
from models.spec import NetSpec, Prediction
from models.train.batches import Batch

_BIN = 1 / 255
"""Half the width of one of the 256 values of frames in -1..1."""


@dataclass(frozen=True, slots=True)
class Objective:
    """How an answer of the net is judged."""

    net: NetSpec
    smallest_time: float
    seam_weight: float = 0.0
    """Patches are drawn apart, so their errors meet in steps; so many times the squares of these steps are added."""
    precision: Precision = Precision.FP32

    def of(self, net: nn.Module, rows: Batch) -> Tensor:
        """Sum over the numbers that count; `rows.counted` says how many they are."""
        with torch.autocast(rows.x.device.type, dtype=torch.bfloat16, enabled=self.precision is Precision.BF16):
            answer = net(rows.x, rows.times * self.net.time_scale, rows.labels)
        out, fraction = answer.float(), None
        if self.net.learned_variance:
            out, fraction = out.chunk(2, dim=1)
        error = self._error(out, rows)
        loss: Tensor = (error**2).sum()
        if self.seam_weight:
            loss = loss + self.seam_weight * seams(error, self.net.patch)
        if fraction is not None:
            loss = loss + (rows.weight * bound(self._clean(out.detach(), rows), fraction, rows)).sum()
        return loss

    def _error(self, out: Tensor, rows: Batch) -> Tensor:
        prediction = self.net.prediction
        if prediction in (Prediction.X, Prediction.RESIDUAL):
            weight = rows.weight / rows.sigma.clamp(min=self.smallest_time) ** 2
            base = rows.base if prediction is Prediction.RESIDUAL else 0.0
            return weight.sqrt() * (out + base - rows.clean)
        return rows.weight.sqrt() * (out - target(prediction, rows))

    def _clean(self, out: Tensor, rows: Batch) -> Tensor:
        """The clean image that an answer stands for; the inverse of `target`."""
        x, alpha, sigma = rows.noisy, rows.alpha, rows.sigma
        match self.net.prediction:
            case Prediction.EPSILON:
                return (x - sigma * out) / alpha
            case Prediction.V:
                return (alpha * x - sigma * out) / (alpha**2 + sigma**2)
            case Prediction.FLOW:
                return (x - sigma * out) / (alpha + sigma)
            case Prediction.RESIDUAL:
                return out + rows.base
            case Prediction.X:
                return out


def target(prediction: Prediction, rows: Batch) -> Tensor:
    """What the net should say, (B, C, S, S), of the predictions that are compared as they are."""
    if prediction is Prediction.EPSILON:
        return rows.noise
    if prediction is Prediction.V:
        return rows.alpha * rows.noise - rows.sigma * rows.clean
    assert prediction is Prediction.FLOW, prediction
    return rows.noise - rows.clean


def seams(error: Tensor, patch: int) -> Tensor:
    """Sum of the squared jumps of (B, C, S, S) across the borders of patches."""
    before, after = slice(patch - 1, -1, patch), slice(patch, None, patch)
    down = error[:, :, after] - error[:, :, before]
    across = error[..., after] - error[..., before]
    return (down**2).sum() + (across**2).sum()


def bound(clean: Tensor, fraction: Tensor, rows: Batch) -> Tensor:
    """Each number's term of the variational bound on DDPM's schedule, in bits, (B, C, S, S).

    `clean` is the estimate of the clean image; `fraction` says where the log variance lies between its bounds, -1..1.
    Above time 0 it is the divergence of the step that the net stands for from the true one (Ho et al. 2020, eq. 5
    ff.); at time 0 the likelihood of the clean image's own value among 256.
    """
    first, second, low, high = _steps(rows.times)
    share = (fraction + 1) / 2
    log_variance = share * high + (1 - share) * low
    mean = first * clean + second * rows.noisy
    true = first * rows.clean + second * rows.noisy
    divergence = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + (true - mean) ** 2 / log_variance.exp())
    likelihood = _likelihood(rows.clean, mean, deviation=(0.5 * log_variance).exp())
    is_last = (rows.times == 0)[:, None, None, None]
    return torch.where(is_last, -likelihood, divergence) / math.log(2)


def _likelihood(value: Tensor, mean: Tensor, *, deviation: Tensor) -> Tensor:
    """Logarithm of the chance of one of 256 values; the outermost reach to infinity."""
    above, below = _below(value + _BIN, mean, deviation), _below(value - _BIN, mean, deviation)
    above = torch.where(value > 1 - _BIN, 1.0, above)
    below = torch.where(value < -1 + _BIN, 0.0, below)
    return (above - below).clamp(min=1e-12).log()


def _below(value: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    share: Tensor = torch.special.ndtr((value - mean) / deviation)
    return share


def _steps(times: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the true step from each time: shares of the clean image and of x in its mean; its log variance, and beta's.

    The log variance at time 0, where it would be that of nothing, is the one at time 1. Each is (B, 1, 1, 1).
    """
    table = _STEPS.to(times.device)[times.long()]
    first, second, low, high = table[:, :, None, None, None].unbind(1)
    return first, second, low, high


def _table() -> Tensor:
    rows = []
    for time in range(1000):
        here, there = linear_level(time), linear_level(time - 1)
        beta = 1 - (here.alpha / there.alpha) ** 2
        variance = beta * there.sigma**2 / here.sigma**2
        shares = (there.alpha * beta / here.sigma**2, here.alpha / there.alpha * there.sigma**2 / here.sigma**2)
        rows.append((*shares, math.log(variance) if variance else 0.0, math.log(beta)))
    rows[0] = (*rows[0][:2], rows[1][2], rows[0][3])
    return torch.tensor(rows)


_STEPS = _table()
