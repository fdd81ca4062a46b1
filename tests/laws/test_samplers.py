"""Samplers against an analytic answer: for Gaussian data the exact clean estimate, flow and laws are known.

With x0 ~ N(MU, S^2) and x_t = alpha x0 + sigma eps, x_t ~ N(alpha MU, v), v = alpha^2 S^2 + sigma^2, and
E[x0 | x_t] = MU + alpha S^2 (x_t - alpha MU) / v. The probability flow keeps (x_t - alpha MU) / sqrt(v) constant. Every
sampler is affine in its start and its noises here, so the law of what it draws follows from its response to each:
no sampling, no statistical bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from models import samplers
from models.nn.dit import DiT
from models.samplers import Estimate, Query
from models.schedules import Level, levels
from models.spec import ScheduleName, Spacing, Stage
from tests.sampling import drawn
from tests.tiny import awake, tiny_net

MU, S = 0.3, 0.5
FLOWS = {"ddim": 1, "dpmpp_2m": 2, "euler": 1, "heun": 2}
"""Deterministic samplers, and their order of convergence."""
LAWS = {"ddpm": 1, "sde_dpmpp_2m": 2}
"""Stochastic ones; the order is that of the standard deviation and the mean that they draw."""
EVERY = sorted(FLOWS | LAWS)

CleanImages = Callable[[list[Query]], Tensor]


def moments(level: Level) -> tuple[float, float]:
    """Mean and standard deviation of x_t."""
    return level.alpha * MU, math.hypot(level.alpha * S, level.sigma)


def exact(query: Query) -> Estimate:
    mean, deviation = moments(query.level)
    return Estimate(MU + query.level.alpha * S**2 * (query.x - mean) / deviation**2)


def flowed(x: Tensor, here: Level, there: Level) -> Tensor:
    mean, deviation = moments(here)
    end_mean, end_deviation = moments(there)
    return end_mean + end_deviation * (x - mean) / deviation


def chain(steps: int) -> tuple[Level, ...]:
    """Even steps of log(alpha / sigma) from -3 to 3, where every step is of a sampler's full order."""
    squares = [torch.tensor(-6 + 12 * i / steps, dtype=torch.float64).sigmoid().item() for i in range(steps + 1)]
    return tuple(Level(0.0, math.sqrt(square), math.sqrt(1 - square)) for square in squares)


def flow_error(name: str, ladder: tuple[Level, ...]) -> float:
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    result = drawn(name, x, levels=ladder, answer=exact).result
    return float((result - flowed(x, ladder[0], ladder[-1])).abs().max())


def law(name: str, ladder: tuple[Level, ...]) -> tuple[float, float]:
    """Mean and standard deviation of what is drawn from the exact law of the first level."""
    steps, (mean, deviation) = len(ladder) - 1, moments(ladder[0])
    # Items: the mean itself, then one deviation off in the start, then one in the noise of each step.
    x = torch.full((steps + 2,), mean, dtype=torch.float64)
    x[1] += deviation
    noise = torch.eye(steps + 2, dtype=torch.float64)[2:]
    result = drawn(name, x, levels=ladder, answer=exact, noise=noise).result
    return float(result[0]), float((result[1:] - result[0]).norm())


def law_error(name: str, ladder: tuple[Level, ...]) -> float:
    return math.dist(law(name, ladder), moments(ladder[-1]))


def test_every_sampler_has_its_order_stated_here() -> None:
    assert list(samplers.names()) == EVERY


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_order_of_convergence(name: str) -> None:
    coarse, fine = (flow_error(name, chain(steps)) for steps in (128, 256))
    assert math.log2(coarse / fine) == pytest.approx(FLOWS[name], abs=0.1)


@pytest.mark.parametrize("name", sorted(LAWS))
def test_order_of_convergence_in_law(name: str) -> None:
    coarse, fine = (law_error(name, chain(steps)) for steps in (128, 256))
    assert math.log2(coarse / fine) == pytest.approx(LAWS[name], abs=0.1)


@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("schedule", list(ScheduleName))
@pytest.mark.parametrize("name", EVERY)
def test_reaches_the_answer_from_pure_noise(name: str, schedule: ScheduleName, spacing: Spacing) -> None:
    error = flow_error if name in FLOWS else law_error
    assert error(name, levels(schedule, 400, spacing=spacing)) < 0.012


@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_second_order_pays_with_few_steps(schedule: ScheduleName, spacing: Spacing) -> None:
    """Also in linear spacing on DDPM's schedule, whose last step is too long to carry an estimate over."""
    ladder = levels(schedule, 25, spacing=spacing)
    assert flow_error("dpmpp_2m", ladder) < flow_error("euler", ladder) / 3
    assert law_error("sde_dpmpp_2m", ladder) < law_error("ddpm", ladder) / 2


@pytest.mark.parametrize("schedule", list(ScheduleName))
@pytest.mark.parametrize("steps", [2, 3, 7])
def test_learned_variance_makes_any_number_of_ancestral_steps_exact(schedule: ScheduleName, steps: int) -> None:
    ladder = levels(schedule, steps, spacing=Spacing.LOG_SNR)
    _, start = moments(ladder[0])
    variances = iter(exact_fractions(ladder))
    x = torch.zeros(steps + 2, dtype=torch.float64)
    x[1] = start
    result = drawn(
        "ddpm",
        x,
        levels=ladder,
        answer=lambda query: Estimate(exact(query).clean, torch.full_like(query.x, next(variances))),
        noise=torch.eye(steps + 2, dtype=torch.float64)[2:],
    ).result
    last = ladder[-2]  # a step to the clean image is its estimate: it spreads as estimates at that level do
    assert float((result[1:] - result[0]).norm()) == pytest.approx(last.alpha * S**2 / moments(last)[1], rel=1e-9)


def exact_fractions(ladder: tuple[Level, ...]) -> list[float]:
    """Where the variance of x_s given x_t lies between its bounds, by conditioning one Gaussian on the other."""
    fractions = []
    for here, there in pairwise(ladder[:-1]):
        added = here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2
        within, without = moments(there)[1] ** 2, moments(here)[1] ** 2
        covariance = here.alpha / there.alpha * within
        lower, upper = added * there.sigma**2 / here.sigma**2, added
        share = math.log((within - covariance**2 / without) / lower) / math.log(upper / lower)
        fractions.append(2 * share - 1)
    return [*fractions, 0.0]


@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_ddim_without_noise_is_euler(schedule: ScheduleName) -> None:
    x = torch.linspace(-2, 2, 41)
    one, other = (drawn(name, x, levels=levels(schedule, 9), answer=exact).result for name in ("ddim", "euler"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", EVERY)
def test_evaluations_and_noises_of_seven_steps(name: str) -> None:
    record = drawn(name, torch.zeros(1), levels=levels(ScheduleName.FLOW, 7), answer=exact)
    assert len(record.queries) == (13 if name == "heun" else 7)
    assert record.noises == ([0, 1, 2, 3, 4, 5] if name in LAWS else [])
    assert samplers.is_stochastic(name) == (name in LAWS)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_one_step_lands_on_the_estimate(name: str, schedule: ScheduleName) -> None:
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    ladder = levels(schedule, 1)
    result = drawn(name, x, levels=ladder, answer=exact).result
    assert torch.allclose(result, exact(Query(x, ladder[0])).clean, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_items_of_one_batch_are_each_as_alone(name: str) -> None:
    x, noise = torch.randn(3, 2, 4), torch.randn(5, 3, 2, 4)
    ladder = levels(ScheduleName.LINEAR, 5)
    together = drawn(name, x, levels=ladder, answer=exact, noise=noise).result
    for item in range(3):
        alone = drawn(name, x[item], levels=ladder, answer=exact, noise=noise[:, item]).result
        assert torch.equal(together[item], alone)


def test_items_at_different_steps_share_a_forward() -> None:
    """One batch of every sampler, each with its own number of steps, spacing and noise, against each alone."""
    net, label = awake(DiT(tiny_net(stage=Stage.COARSE))), torch.zeros(1, dtype=torch.long)
    x, noise = torch.randn(len(EVERY), 3, 16, 16), torch.randn(len(EVERY), 12, 3, 16, 16)
    ladders = [levels(ScheduleName.FLOW, 3 + i, spacing=list(Spacing)[i % 3]) for i in range(len(EVERY))]

    def clean(queries: list[Query]) -> Tensor:
        times = torch.tensor([query.level.time * 1000 for query in queries])
        estimate: Tensor = net(torch.stack([query.x for query in queries]), times, label.expand(len(queries)))
        return estimate

    with torch.inference_mode():
        together = lockstep(x, noise, ladders, clean)
        for i, name in enumerate(EVERY):
            alone = drawn(
                name, x[i], levels=ladders[i], answer=lambda query: Estimate(clean([query])[0]), noise=noise[i]
            )
            assert torch.allclose(together[i], alone.result, atol=1e-5)


def lockstep(x: Tensor, noise: Tensor, ladders: list[tuple[Level, ...]], clean: CleanImages) -> list[Tensor]:
    """Every run's next query in one call, until all have ended."""
    runs = [
        samplers.load(name)(x[i], levels=ladders[i], noise=lambda step, i=i: noise[i, step])  # type: ignore[misc]
        for i, name in enumerate(EVERY)
    ]
    queries, results = {i: next(run) for i, run in enumerate(runs)}, [torch.empty(0)] * len(runs)
    while queries:
        for i, estimate in zip(list(queries), clean(list(queries.values())), strict=True):
            try:
                queries[i] = runs[i].send(Estimate(estimate))
            except StopIteration as end:
                results[i] = end.value
                del queries[i]
    return results


def test_unknown_sampler_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="euler"):
        samplers.load("magic")
