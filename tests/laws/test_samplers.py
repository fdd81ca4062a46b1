"""Samplers against an analytic answer: for Gaussian data the exact clean estimate and the exact flow are known.

With x0 ~ N(mu, s^2) and x_t = alpha x0 + sigma eps, E[x0 | x_t] = mu + alpha s^2 (x_t - alpha mu) / v with
v = alpha^2 s^2 + sigma^2, and the flow keeps (x_t - alpha mu) / sqrt(v) constant.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from models import samplers
from models.samplers import Estimate, Query
from models.schedules import Level, denoised, levels
from models.spec import Prediction, ScheduleName

MU, S = 0.3, 0.5
ORDER = {"euler": 1, "heun": 2}
DRAWN = {"ddpm"}


def clean_estimate(query: Query) -> Tensor:
    alpha, sigma = query.level.alpha, query.level.sigma
    return MU + alpha * S**2 * (query.x - alpha * MU) / (alpha**2 * S**2 + sigma**2)


def exact(x: Tensor, start: Level) -> Tensor:
    return MU + S * (x - start.alpha * MU) / math.sqrt(start.alpha**2 * S**2 + start.sigma**2)


def draw(name: str, x: Tensor, schedule: ScheduleName, steps: int) -> tuple[Tensor, int]:
    sampling = samplers.load(name)(x, levels=levels(schedule, steps), noise=lambda _: torch.zeros_like(x))
    query, evaluations = next(sampling), 1
    while True:
        try:
            query = sampling.send(Estimate(clean_estimate(query)))
        except StopIteration as end:
            result: Tensor = end.value
            return result, evaluations
        evaluations += 1


def error(name: str, schedule: ScheduleName, steps: int) -> float:
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    return float((draw(name, x, schedule, steps)[0] - exact(x, levels(schedule, steps)[0])).abs().max())


def test_every_sampler_has_its_order_stated_here() -> None:
    assert set(samplers.names()) == set(ORDER) | DRAWN


@pytest.mark.parametrize("name", sorted(ORDER))
def test_order_of_convergence(name: str) -> None:
    coarse, fine = (error(name, ScheduleName.FLOW, steps) for steps in (64, 128))
    assert math.log2(coarse / fine) == pytest.approx(ORDER[name], abs=0.25)


@pytest.mark.parametrize("name", sorted(ORDER))
def test_ddpm_schedule_reaches_the_answer(name: str) -> None:
    assert error(name, ScheduleName.LINEAR, 500) < 0.02


@pytest.mark.parametrize(("name", "evaluations"), [("euler", 7), ("heun", 13)])
def test_evaluations_per_step(name: str, evaluations: int) -> None:
    assert draw(name, torch.zeros(1, dtype=torch.float64), ScheduleName.FLOW, 7)[1] == evaluations


def test_unknown_sampler_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="euler"):
        samplers.load("magic")


@pytest.mark.parametrize("schedule", list(ScheduleName))
@pytest.mark.parametrize("prediction", list(Prediction))
def test_every_prediction_recovers_the_clean_image(prediction: Prediction, schedule: ScheduleName) -> None:
    x0, eps = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    level = levels(schedule, 4)[2]
    x = level.alpha * x0 + level.sigma * eps
    out = {
        Prediction.X: x0,
        Prediction.RESIDUAL: x0,  # of what is left of the image when the low-resolution frame is taken away
        Prediction.EPSILON: eps,
        Prediction.V: level.alpha * eps - level.sigma * x0,
        Prediction.FLOW: eps - x0,
    }[prediction]
    assert torch.allclose(denoised(prediction, x, out, level), x0, atol=1e-9)


def test_levels_end_at_the_clean_image() -> None:
    for schedule in ScheduleName:
        ends = levels(schedule, 10)
        assert len(ends) == 11
        assert (ends[-1].alpha, ends[-1].sigma) == (1.0, 0.0)
        assert all(a.sigma > b.sigma for a, b in itertools.pairwise(ends))
