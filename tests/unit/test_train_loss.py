"""The loss: nets that answer right lose nothing, and the bound is the one of the papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, distributions, nn

from models import schedules
from models.spec import NetSpec, Prediction, ScheduleName, Stage
from models.train.batches import Batch
from models.train.loss import Objective, bound, target
from tests.tiny import tiny_net

SIZE = 8


def rows_at(schedule: ScheduleName, times: list[float], *, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    level = {ScheduleName.FLOW: schedules.flow_level, ScheduleName.LINEAR: schedules.linear_level}[schedule]
    levels = [level(time) for time in times]
    alpha, sigma = (
        torch.tensor([getattr(each, name) for each in levels])[:, None, None, None] for name in ("alpha", "sigma")
    )
    clean = torch.rand(len(times), 3, SIZE, SIZE, generator=generator) * 2 - 1
    noise = torch.randn(clean.shape, generator=generator)
    labels, weight = torch.zeros(len(times), dtype=torch.long), torch.ones(len(times), 1, SIZE, 1)
    return Batch(alpha * clean + sigma * noise, torch.tensor(times), labels, clean, noise, alpha, sigma, weight)


def spec(prediction: Prediction, schedule: ScheduleName, *, learned_variance: bool = False) -> NetSpec:
    changes = {"prediction": prediction, "schedule": schedule, "learned_variance": learned_variance}
    return tiny_net(stage=Stage.COARSE).model_copy(update=changes)


class Answer(nn.Module):
    """Says one thing whatever it is asked."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.out


@pytest.mark.parametrize("prediction", [Prediction.EPSILON, Prediction.V, Prediction.FLOW])
@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_the_target_stands_for_the_clean_image(prediction: Prediction, schedule: ScheduleName) -> None:
    times = [0.3, 0.6, 0.9] if schedule is ScheduleName.FLOW else [5.0, 300.0, 700.0]
    rows = rows_at(schedule, times)
    right = target(prediction, rows)
    level = schedules.flow_level if schedule is ScheduleName.FLOW else schedules.linear_level
    for row, time in enumerate(times):
        clean = schedules.denoised(prediction, rows.x[row], right[row], level(time))
        torch.testing.assert_close(clean, rows.clean[row], rtol=1e-4, atol=1e-4)
    objective = Objective(spec(prediction, schedule), 0.05)
    assert float(objective.of(Answer(right), rows)) == 0
    assert float(objective.of(Answer(right + 0.5), rows)) == pytest.approx(0.25 * rows.counted, rel=1e-5)


@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_the_error_of_a_clean_image_is_weighed_as_that_of_its_velocity(schedule: ScheduleName) -> None:
    rows = rows_at(schedule, [0.3, 0.8] if schedule is ScheduleName.FLOW else [300.0, 800.0])
    wrong = rows.clean + 0.1 * torch.randn(rows.clean.shape, generator=torch.Generator().manual_seed(1))
    as_clean = Objective(spec(Prediction.X, schedule), 1e-6).of(Answer(wrong), rows)
    noise = (rows.x - rows.alpha * wrong) / rows.sigma
    kind, velocity = Prediction.FLOW, noise - wrong
    if schedule is ScheduleName.LINEAR:
        kind, velocity = Prediction.V, rows.alpha * noise - rows.sigma * wrong
    as_velocity = Objective(spec(kind, schedule), 1e-6).of(Answer(velocity), rows)
    torch.testing.assert_close(as_clean, as_velocity, rtol=1e-4, atol=0)


def test_given_rows_count_for_nothing() -> None:
    rows = rows_at(ScheduleName.LINEAR, [0.0, 500.0])
    weight = rows.weight.clone()
    weight[:, :, :4] = 0
    partly = Batch(rows.x, rows.times, rows.labels, rows.clean, rows.noise, rows.alpha, rows.sigma, weight)
    objective = Objective(spec(Prediction.EPSILON, ScheduleName.LINEAR, learned_variance=True), 0.05)
    out = torch.randn(2, 6, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    spoilt = out.clone()
    spoilt[:, :, :4] += 3
    torch.testing.assert_close(objective.of(Answer(out), partly), objective.of(Answer(spoilt), partly))
    assert partly.counted == rows.counted // 2


def _published_step(time: int) -> tuple[float, float, float, float]:
    """Mean's shares of the clean image and of x_t, and the two variances (Ho et al. 2020, eq. 6 and 7)."""
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    bar, before, beta = bars[time], bars[time - 1], betas[time]
    first = before.sqrt() * beta / (1 - bar)
    second = (1 - beta).sqrt() * (1 - before) / (1 - bar)
    return float(first), float(second), float(beta * (1 - before) / (1 - bar)), float(beta)


@pytest.mark.parametrize("time", [1, 2, 50, 999])
@pytest.mark.parametrize("share", [-1.0, 0.3, 1.0])
def test_the_bound_is_the_divergence_of_the_step(time: int, share: float) -> None:
    rows = rows_at(ScheduleName.LINEAR, [float(time)])
    guess = rows.clean + 0.2
    first, second, low, high = _published_step(time)
    log_variance = (share + 1) / 2 * math.log(high) + (1 - share) / 2 * math.log(low)
    true = distributions.Normal(first * rows.clean + second * rows.x, math.sqrt(low))
    ours = distributions.Normal(first * guess + second * rows.x, math.exp(0.5 * log_variance))
    expected = distributions.kl_divergence(true, ours) / math.log(2)
    found = bound(guess, torch.full_like(guess, share), rows)
    torch.testing.assert_close(found, expected.float(), rtol=2e-3, atol=2e-4)


def test_a_perfect_step_has_no_divergence() -> None:
    rows = rows_at(ScheduleName.LINEAR, [400.0])
    found = bound(rows.clean, torch.full_like(rows.clean, -1.0), rows)
    assert float(found.abs().max()) < 1e-5
    assert float(bound(rows.clean, torch.zeros_like(rows.clean), rows).min()) > 0


def test_at_time_0_it_is_the_likelihood_of_one_of_256_values() -> None:
    values = torch.arange(256) / 127.5 - 1
    rows = rows_at(ScheduleName.LINEAR, [0.0] * 256)
    clean = values[:, None, None, None].expand(-1, 3, SIZE, SIZE)
    every = Batch(rows.x, rows.times, rows.labels, clean, rows.noise, rows.alpha, rows.sigma, rows.weight)
    guess = torch.full_like(clean, 0.31)
    bits = bound(guess, torch.full_like(clean, 0.5), every)[:, 0, 0, 0]
    assert float((2.0**-bits).sum()) == pytest.approx(1.0, abs=1e-4), "a distribution over all values"
    assert int(bits.argmin()) == round((0.31 + 1) * 127.5)


def test_the_variance_does_not_pull_at_the_mean() -> None:
    rows = rows_at(ScheduleName.LINEAR, [10.0, 500.0])
    out = torch.randn(2, 6, SIZE, SIZE, generator=torch.Generator().manual_seed(3)).requires_grad_()
    plain = Objective(spec(Prediction.EPSILON, ScheduleName.LINEAR), 0.05)
    learned = Objective(spec(Prediction.EPSILON, ScheduleName.LINEAR, learned_variance=True), 0.05)
    (both,) = torch.autograd.grad(learned.of(Answer(out), rows), out)
    (mean,) = torch.autograd.grad(plain.of(Answer(out[:, :3]), rows), out)
    torch.testing.assert_close(both[:, :3], mean[:, :3])
    assert float(both[:, 3:].abs().min()) > 0
