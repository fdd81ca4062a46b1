"""The law of the scheduler: a job alone equals the same job among others, before and after it is interrupted.

The oracle is `models.alone`, which knows no batches. All comparisons are bitwise.
"""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models import samplers
from models.bundle import Bundle
from models.engine import Precision, Rows
from models.engines.torch import TorchEngine
from models.evaluator import Answering, Evaluator
from models.plan import Request, UnitKind, frames_made
from models.spec import Mode, Spacing, Stage
from tests.driving import Oracle, assert_equal, by_itself, on_cpu, results, run_to_end, runner_for, spec_of, task
from tests.tiny import CLASSES, tiny_bundle
from workers.contracts import job as contract
from workers.contracts.catalogue import EngineInfo
from workers.contracts.errors import BundleUnavailable, NumericalError
from workers.inhand import REFINED_AT_ONCE, JobInHand
from workers.runner import Runner
from workers.scheduler import Net
from workers.tasks import Fact, RunAlone, TaskFailed, TaskFinished, TickRan, UnitFinished


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def oracle(bundle: Bundle) -> Oracle:
    return by_itself(bundle)


def some_specs(rng: random.Random, count: int) -> list[contract.JobSpec]:
    return [
        spec_of(
            seed=rng.randrange(10),
            num_frames=rng.randint(1, 40),
            num_inference_steps=rng.randint(1, 5),
            refine_steps=rng.randint(1, 4),
            sampler=rng.choice(samplers.names()),
            spacing=rng.choice(list(Spacing)),
            slow_motion=rng.choice([1, 1, 2, 5]),
            cache=rng.choice([1, 1, 2]),
            class_label=rng.choice([None, *CLASSES]),
            guidance_scale=rng.choice([1.0, 1.5, 3.0]),
            stages=rng.choice(["coarse", "refined"]),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("mix", range(20))
def test_a_job_alone_equals_the_same_job_among_others(bundle: Bundle, oracle: Oracle, mix: int) -> None:
    rng = random.Random(mix)
    specs = some_specs(rng, rng.randint(2, 5))
    runner = runner_for(bundle, largest=rng.choice([1, 2, 8, 32]))
    facts: list[Fact] = []
    for index, spec in enumerate(specs):
        runner.admit(task(f"job-{index}", spec, submitted_at=rng.random()))
        for _ in range(rng.randint(0, 6)):  # later jobs come when earlier ones are under way
            facts.extend(runner.tick())
    facts.extend(run_to_end(runner))
    for index, spec in enumerate(specs):
        assert_equal(results(facts, f"job-{index}"), oracle(spec))
        assert sum(isinstance(f, TaskFinished) and f.job_id == f"job-{index}" for f in facts) == 1


def test_rows_of_several_jobs_share_a_batch(bundle: Bundle) -> None:
    runner = runner_for(bundle)
    for index in range(2):
        runner.admit(task(f"job-{index}", spec_of(seed=index)))
    ticks = [fact for fact in run_to_end(runner) if isinstance(fact, TickRan)]
    assert any(tick.jobs == 2 and tick.net == Stage.COARSE for tick in ticks)
    assert any(tick.jobs == 2 and tick.net == Stage.REFINE for tick in ticks)
    assert all(tick.rows <= tick.bucket <= 8 for tick in ticks)


def ticks_to_first_refined(runner: Runner, job_id: str) -> int:
    for count in itertools.count(1):
        for fact in runner.tick():
            if isinstance(fact, UnitFinished) and fact.job_id == job_id and fact.unit.stage is Stage.REFINE:
                return count
    raise AssertionError("unreachable")


def test_a_long_job_does_not_keep_others_first_frames_waiting(bundle: Bundle) -> None:
    alone = runner_for(bundle)
    alone.admit(task("new", spec_of()))
    by_itself = ticks_to_first_refined(alone, "new")
    busy = runner_for(bundle)
    busy.admit(task("long", spec_of(num_frames=76)))  # sixteen grids
    for _ in range(20):
        busy.tick()
    busy.admit(task("new", spec_of(), submitted_at=1.0))
    assert ticks_to_first_refined(busy, "new") <= by_itself + 1


def test_refinement_overlaps_later_grids_of_the_same_job(bundle: Bundle) -> None:
    runner = runner_for(bundle)
    runner.admit(task("job", spec_of(num_frames=76)))
    order = [fact.unit for fact in run_to_end(runner) if isinstance(fact, UnitFinished)]
    stages = [unit.stage for unit in order]
    assert stages.index(Stage.REFINE) == 1, "its first refined frames follow its first grid"
    assert Stage.COARSE in stages[2:]
    assert [unit.frames.start for unit in order if unit.stage is Stage.REFINE] == [0, *range(16, 76, 4)]


@pytest.mark.parametrize("kept", range(6))
def test_an_interrupted_job_goes_on_to_the_same_pixels(bundle: Bundle, oracle: Oracle, kept: int) -> None:
    spec = spec_of(num_frames=30)
    wanted = oracle(spec)
    runner = runner_for(bundle)
    runner.admit(task("job", spec))
    before: list[Fact] = []
    while len(results(before, "job")) < kept:
        before.extend(runner.tick())
    done = results(before, "job")
    grids = {key: result for key, result in done.items() if not key.startswith(UnitKind.REFINE)}
    again = runner_for(bundle)
    again.admit(task("job", spec, finished=grids, done=frozenset(done)))
    after = results(run_to_end(again), "job")
    assert not done.keys() & after.keys(), "no finished unit is computed twice"
    assert_equal(done | after, wanted)


def test_a_job_with_nothing_left_only_finishes(bundle: Bundle, oracle: Oracle) -> None:
    spec = spec_of()
    every = oracle(spec)
    runner = runner_for(bundle)
    runner.admit(task("job", spec, done=frozenset(every), finished={}))
    assert run_to_end(runner) == [TaskFinished("job", 1)]


def test_a_suspect_runs_alone_until_a_unit_is_done(bundle: Bundle, oracle: Oracle) -> None:
    runner = runner_for(bundle)
    runner.admit(task("other", spec_of(seed=5)))
    runner.admit(task("suspect", spec_of(), submitted_at=9.0, alone=RunAlone.UNTIL_UNIT))
    facts: list[Fact] = []
    while not results(facts, "suspect"):
        facts.extend(runner.tick())
    assert all(fact.jobs == 1 for fact in facts if isinstance(fact, TickRan))
    assert not results(facts, "other")
    facts.extend(run_to_end(runner))
    assert_equal(results(facts, "other"), oracle(spec_of(seed=5)))


class Counted(TorchEngine):
    """Counts its runs, of whatever kind."""

    runs = 0

    def run(self, batch: Rows) -> Tensor:
        self.runs += 1
        return super().run(batch)

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        self.runs += 1
        return super().run_keeping(batch)

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        self.runs += 1
        return super().run_reusing(batch, deep)


def test_a_tick_is_one_run_of_one_engine(bundle: Bundle) -> None:
    engines = {stage: on_cpu(Counted, bundle, stage) for stage in Stage}
    runner = runner_for(bundle, engines)
    for seed, cache in enumerate((1, 2, 2, 3)):
        runner.admit(task(f"job-{seed}", spec_of(seed=seed, cache=cache, num_inference_steps=6, refine_steps=4)))
        runner.tick()
    while runner.has_work:
        before = sum(engine.runs for engine in engines.values())
        ran = [fact for fact in runner.tick() if isinstance(fact, TickRan)]
        assert sum(engine.runs for engine in engines.values()) - before == len(ran) <= 1


def test_a_job_that_is_all_drawn_does_not_begin_to_refine_all_at_once(bundle: Bundle, oracle: Oracle) -> None:
    spec = spec_of(num_frames=256)
    grids = {key: result for key, result in oracle(spec).items() if key.startswith("coarse")}
    job = JobInHand(
        task("job", spec, finished=grids, done=frozenset(grids)), bundle, device=torch.device("cpu"), now=0.0
    )
    job.start_ready()
    begun = [entry.frame for entry in job.waiting()]
    assert begun == [0, *range(16, REFINED_AT_ONCE, 4)]


class Mute(TorchEngine):
    """Answers NaN."""

    def run(self, batch: Rows) -> Tensor:
        return torch.full_like(super().run(batch), torch.nan)


def test_values_that_are_not_finite_fail_the_job(bundle: Bundle) -> None:
    engine = Mute(bundle.net(Stage.COARSE), device=torch.device("cpu"), precision=Precision.FP32, buckets=(1, 2, 4))
    runner = runner_for(bundle, {Stage.COARSE: engine})
    runner.admit(task("job", spec_of()))
    facts = run_to_end(runner)
    failed = [fact for fact in facts if isinstance(fact, TaskFailed)]
    assert [type(fact.error) for fact in failed] == [NumericalError]
    assert not results(facts, "job")


@pytest.mark.parametrize("changes", [{"model": "other"}, {"class_label": "mud"}, {"sampler": "magic"}])
def test_a_job_that_cannot_start_says_why_and_hurts_nobody(
    bundle: Bundle, oracle: Oracle, changes: dict[str, object]
) -> None:
    runner = runner_for(bundle)
    runner.admit(task("good", spec_of()))
    runner.admit(task("bad", spec_of(**changes)))
    facts = run_to_end(runner)
    failed = [fact for fact in facts if isinstance(fact, TaskFailed)]
    assert [fact.job_id for fact in failed] == ["bad"]
    assert str(next(iter(changes.values()))) in failed[0].error.message
    assert isinstance(failed[0].error, BundleUnavailable) or "sampler" in changes
    assert_equal(results(facts, "good"), oracle(spec_of()))


def test_a_dropped_job_leaves_no_trace(bundle: Bundle) -> None:
    runner = runner_for(bundle)
    runner.admit(task("job", spec_of()))
    runner.tick()
    runner.drop("job")
    runner.drop("job")
    assert not runner.has_work
    assert runner.tick() == []


@given(asked=st.integers(1, 5000))
def test_the_contract_and_the_plan_agree_on_the_length_of_the_official_mode(asked: int) -> None:
    request = Request(asked, 0, None, 2, 2, "ddpm", 4.0, mode=Mode.OFFICIAL)
    assert contract.Mode.OFFICIAL.frames_made(asked) == frames_made(request)


class Uncaching:
    """An engine with no more than every engine has."""

    name, precision, device = "plain", Precision.FP32, torch.device("cpu")
    buckets: tuple[int, ...] = (1, 2)

    def prepare(self) -> None:
        pass

    def run(self, batch: Rows) -> Tensor:
        return batch.x[:, :3]

    def close(self) -> None:
        pass


def test_features_are_only_reused_where_every_engine_can(bundle: Bundle) -> None:
    nets: dict[Net, Answering] = {Net("tiny", stage): Evaluator(bundle.net(stage), Uncaching()) for stage in Stage}
    infos = {net: EngineInfo(engine="plain", precision="fp32") for net in nets}
    runner = Runner({"tiny": bundle}, nets, engines=infos)
    assert not runner.catalogue()[0].caches
    runner.admit(task("job", spec_of(cache=2)))
    (failed,) = run_to_end(runner)
    assert isinstance(failed, TaskFailed)
    assert isinstance(failed.error, BundleUnavailable)
    runner.admit(task("job", spec_of()))
    assert any(isinstance(fact, TaskFinished) for fact in run_to_end(runner))
    assert runner_for(bundle).catalogue()[0].caches
