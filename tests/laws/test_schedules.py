"""At which times a sampler looks, and what a prediction means there."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from models.schedules import LINEAR_TIMES, StepsOutOfRange, denoised, levels
from models.spec import Prediction, ScheduleName, Spacing

GOLDEN = Path(__file__).parent.parent / "golden"
EVERY = list(itertools.product(ScheduleName, Spacing))


@pytest.mark.parametrize(("schedule", "spacing"), EVERY)
@given(steps=st.integers(1, LINEAR_TIMES))
def test_from_the_noisiest_time_to_the_clean_image(schedule: ScheduleName, spacing: Spacing, steps: int) -> None:
    found = levels(schedule, steps, spacing=spacing)
    assert len(found) == steps + 1
    assert found[0].time == (1.0 if schedule is ScheduleName.FLOW else 999)
    assert (found[-1].alpha, found[-1].sigma) == (1.0, 0.0)
    assert all(
        a.time > b.time and a.sigma > b.sigma and a.log_ratio < b.log_ratio for a, b in itertools.pairwise(found)
    )


def test_the_published_times() -> None:
    vectors = load_file(GOLDEN / "vectors.safetensors")
    found = levels(ScheduleName.LINEAR, 10)[:-1]
    assert [level.time for level in reversed(found)] == vectors["timestep_map"].tolist()
    alphas = torch.tensor([level.alpha**2 for level in reversed(found)], dtype=torch.float64)
    assert torch.allclose(alphas, vectors["alphas_cumprod"], atol=1e-15)
    assert [level.time for level in levels(ScheduleName.LINEAR, 250)[:4]] == [999, 995, 991, 987]


def test_trailing_steps_are_all_as_long_as_the_last() -> None:
    times = [level.time for level in levels(ScheduleName.LINEAR, 4, spacing=Spacing.TRAILING)]
    assert times == [999, 749, 499, 249, -1]


@pytest.mark.parametrize("schedule", list(ScheduleName))
def test_log_snr_steps_are_even_in_it(schedule: ScheduleName) -> None:
    ratios = [level.log_ratio for level in levels(schedule, 20, spacing=Spacing.LOG_SNR)[1:-1]]
    steps = [b - a for a, b in itertools.pairwise(ratios)]
    # Integer times are that coarse at the clean end; flow has any time.
    assert max(steps) - min(steps) < (0.35 if schedule is ScheduleName.LINEAR else 1e-9)
    ends = [levels(name, 20, spacing=Spacing.LOG_SNR)[-2].log_ratio for name in ScheduleName]
    assert ends[0] == pytest.approx(ends[1])


def test_more_steps_than_times_are_refused() -> None:
    with pytest.raises(StepsOutOfRange, match=r"steps: found 1001, .*1 to 1000"):
        levels(ScheduleName.LINEAR, 1001)
    with pytest.raises(StepsOutOfRange, match="found 0"):
        levels(ScheduleName.FLOW, 0)
    assert len(levels(ScheduleName.FLOW, 1001)) == 1002


def test_log_ratio_of_the_ends() -> None:
    first, *_, last = levels(ScheduleName.FLOW, 4)
    assert (first.log_ratio, last.log_ratio) == (-math.inf, math.inf)


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


@pytest.mark.parametrize("prediction", list(Prediction))
def test_pure_noise_stands_for_a_finite_image(prediction: Prediction) -> None:
    x, out = torch.randn(5), torch.randn(5)
    assert denoised(prediction, x, out, levels(ScheduleName.FLOW, 4)[0]).isfinite().all()
