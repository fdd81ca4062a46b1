"""The law of results under way: whatever time they take to the host, the bits, their order and the end are the same.

The twin of a GPU's copy arrives after it was asked about some times; whatever is written into the result before that
shows. All comparisons are bitwise; the oracle is `models.alone`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Bundle
from models.engine import Rows
from models.engines.torch import TorchEngine
from models.media import pixels, to_pixels
from models.spec import Stage
from tests.driving import Oracle, assert_equal, by_itself, on_cpu, results, run_to_end, runner_for, spec_of, task
from tests.tiny import tiny_bundle
from workers.contracts.errors import NumericalError
from workers.leaving import Leave
from workers.runner import Runner
from workers.tasks import Fact, TaskFailed, TaskFinished, TickRan, UnitFinished


class Slow:
    """A copy that is made only once it was asked about `looks` times, or waited for."""

    def __init__(self, result: Tensor, looks: int) -> None:
        self._result, self._looks = result, looks

    @property
    def here(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    @property
    def is_finite(self) -> bool:
        return bool(torch.isfinite(self._result).all())

    def taken(self) -> NDArray[np.float32]:
        taken: NDArray[np.float32] = self._result.numpy().copy()
        return taken


def slow(*looks: int) -> Leave:
    """Copies that take so long, one after another."""
    made = 0

    def leave(result: Tensor) -> Slow:
        nonlocal made
        made += 1
        return Slow(result, looks[made % len(looks)])

    return leave


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def oracle(bundle: Bundle) -> Oracle:
    return by_itself(bundle)


@pytest.mark.parametrize("looks", [(1,), (3, 0, 7), (10_000,)])
def test_results_come_in_their_order_and_with_the_same_bits(
    bundle: Bundle, oracle: Oracle, looks: tuple[int, ...]
) -> None:
    prompt, late = runner_for(bundle), runner_for(bundle, leave=slow(*looks))
    told = []
    for runner in (prompt, late):
        for seed in (1, 2):
            runner.admit(task(f"job-{seed}", spec_of(seed=seed, num_frames=30)))
        told.append(run_to_end(runner))
    for seed in (1, 2):
        job = f"job-{seed}"
        assert_equal(results(told[1], job), oracle(spec_of(seed=seed, num_frames=30)))
        orders = [[f.unit.key for f in facts if isinstance(f, UnitFinished) and f.job_id == job] for facts in told]
        assert orders[0] == orders[1]
        (end,) = [place for place, fact in enumerate(told[1]) if isinstance(fact, TaskFinished) and fact.job_id == job]
        last = max(p for p, fact in enumerate(told[1]) if isinstance(fact, UnitFinished) and fact.job_id == job)
        assert end > last, "the end of a job is told after all of it"
    ticks = [[fact.rows for fact in facts if isinstance(fact, TickRan)] for facts in told]
    assert ticks[0] == ticks[1], "the device waits for none of it"


class Mute(TorchEngine):
    """Answers NaN."""

    def run(self, batch: Rows) -> Tensor:
        return torch.full_like(super().run(batch), torch.nan)


def until(runner: Runner, holds: Callable[[Fact], bool]) -> list[Fact]:
    facts: list[Fact] = []
    while not any(holds(fact) for fact in facts):
        facts += runner.tick()
    return facts


@pytest.mark.parametrize("looks", [0, 2, 10_000])
def test_values_that_are_not_finite_fail_their_job_whenever_they_are_found(
    bundle: Bundle, oracle: Oracle, looks: int
) -> None:
    """The refine net's: every unit of it comes to such values, and the coarse ones are told before."""
    engine = on_cpu(Mute, bundle, Stage.REFINE)
    runner = runner_for(bundle, {Stage.REFINE: engine}, leave=slow(looks))
    runner.admit(task("bad", spec_of(num_frames=16)))
    runner.admit(task("good", spec_of(num_frames=16, stages="coarse")))
    facts = run_to_end(runner)
    failed = [fact for fact in facts if isinstance(fact, TaskFailed)]
    assert [(fact.job_id, type(fact.error)) for fact in failed] == [("bad", NumericalError)]
    assert list(results(facts, "bad")) == ["coarse/0"]
    ends = [fact.job_id for fact in facts if isinstance(fact, TaskFinished)]
    assert ends == ["good"], "nothing follows a failure"
    assert_equal(results(facts, "good"), oracle(spec_of(num_frames=16, stages="coarse")))


def test_nothing_is_told_of_a_job_that_was_dropped_meanwhile(bundle: Bundle) -> None:
    runner = runner_for(bundle, leave=slow(10_000))
    runner.admit(task("job", spec_of()))
    for _ in range(6):
        assert not [fact for fact in runner.tick() if isinstance(fact, UnitFinished)]
    runner.drop("job")
    assert not runner.has_work
    assert runner.tick() == []


def test_pictures_are_made_when_they_are_asked_for(bundle: Bundle) -> None:
    runner = runner_for(bundle)
    runner.admit(task("job", spec_of(num_frames=16)))
    (grid,) = [f for f in until(runner, lambda fact: isinstance(fact, UnitFinished)) if isinstance(f, UnitFinished)]
    assert grid.drawn.dtype == np.float32
    assert grid.frames.shape == (16, 4, 4, 3)
    assert np.array_equal(grid.frames, to_pixels(torch.from_numpy(grid.drawn), bits=8))


@pytest.mark.parametrize(("channels", "bits"), [(3, 8), (1, 8), (1, 16)])
def test_every_stored_number_is_reached_and_comes_back(channels: int, bits: int) -> None:
    most = 2**bits - 1
    numbers = np.linspace(0, most, 256).round()
    drawn = (numbers / most * 2 - 1).astype(np.float64 if bits == 16 else np.float32)
    frames = np.broadcast_to(drawn.reshape(1, 1, 16, 16), (1, channels, 16, 16)).astype(np.float32)
    made = pixels(frames, bits=bits)
    assert made.shape == ((1, 16, 16) if bits == 16 else (1, 16, 16, 3))
    assert np.array_equal(made.reshape(256, -1)[:, 0], numbers)
