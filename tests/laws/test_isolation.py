"""The law of isolation: whatever fails, the other jobs' pixels are what they are alone, and every job gets its answer.

Engines that fail in one way each stand for broken ones; the oracle is `models.alone`. All comparisons are bitwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.engine import Rows
from models.engines.torch import TorchEngine
from models.spec import Stage
from tests.driving import Oracle, assert_equal, by_itself, on_cpu, results, run_to_end, runner_for, spec_of, task
from tests.tiny import tiny_bundle
from workers.contracts.errors import DeadlineExceeded
from workers.contracts.job import MAX_ATTEMPTS
from workers.tasks import BatchFailed, Fact, Remedy, RunAlone, TaskFailed, TaskFinished, TickRan


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def oracle(bundle: Bundle) -> Oracle:
    return by_itself(bundle)


class Poisoned(TorchEngine):
    """Fails on every batch that holds a row whose low-resolution frame is all white."""

    runs_that_failed = 0

    def run(self, batch: Rows) -> Tensor:
        if bool((batch.x[:, 3:].amin((1, 2, 3)) == 1).any()):
            self.runs_that_failed += 1
            raise RuntimeError("illegal instruction")
        return super().run(batch)


class Cramped(TorchEngine):
    """Has memory for `room` rows and says so as torch, or a library under it, does."""

    room = 3
    complaint: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    def run(self, batch: Rows) -> Tensor:
        if len(batch.x) > self.room:
            raise self.complaint
        return super().run(batch)


class Faltering(TorchEngine):
    """Every n-th run fails, whoever is in it."""

    every, runs = 5, 0

    def run(self, batch: Rows) -> Tensor:
        self.runs += 1
        if self.runs % self.every == 0:
            raise RuntimeError("a bit fell over")
        return super().run(batch)


class Lost(TorchEngine):
    """A GPU whose context is spoilt."""

    complaint: Exception = RuntimeError()

    def run(self, batch: Rows) -> Tensor:
        raise self.complaint


def failures(facts: Sequence[Fact]) -> list[TaskFailed]:
    return [fact for fact in facts if isinstance(fact, TaskFailed)]


def remedies(facts: Sequence[Fact]) -> list[Remedy]:
    return [fact.remedy for fact in facts if isinstance(fact, BatchFailed)]


def test_a_job_that_breaks_its_batch_fails_alone(bundle: Bundle, oracle: Oracle) -> None:
    engine = on_cpu(Poisoned, bundle, Stage.REFINE)
    runner = runner_for(bundle, {Stage.REFINE: engine})
    spec = spec_of(num_frames=16)
    drawn = oracle(spec)["coarse/0"]
    for job_id, result in {"good": drawn, "bad": np.ones_like(drawn), "fine": drawn}.items():
        kept = {"coarse/0": result}
        runner.admit(task(job_id, spec, finished=kept, done=frozenset(kept)))
    facts = run_to_end(runner)
    (failed,) = failures(facts)
    assert failed.job_id == "bad"
    assert "illegal instruction" in failed.error.message
    assert remedies(facts) == [Remedy.SPLIT, Remedy.AGAIN, Remedy.AGAIN, Remedy.NONE]
    assert engine.runs_that_failed == 1 + MAX_ATTEMPTS
    for job_id in ("good", "fine"):
        assert_equal(results(facts, job_id) | {"coarse/0": drawn}, oracle(spec))


@pytest.mark.parametrize(
    ("room", "complaint"),
    [
        (1, Cramped.complaint),
        (11, Cramped.complaint),
        (3, MemoryError()),
        (3, RuntimeError("CUDA error: out of memory")),
        (3, RuntimeError("TensorRT: [resizingAllocator] Error Code 1: OutOfMemory (no further information)")),
    ],
    ids=["torch-1", "torch-11", "python", "cuda", "tensorrt"],
)
def test_too_large_a_batch_is_tried_in_halves(bundle: Bundle, oracle: Oracle, room: int, complaint: Exception) -> None:
    engine = on_cpu(Cramped, bundle, Stage.REFINE)
    engine.room, engine.complaint = room, complaint
    runner = runner_for(bundle, {Stage.REFINE: engine}, largest=32)
    specs = {f"job-{seed}": spec_of(seed=seed) for seed in range(3)}
    for job_id, spec in specs.items():
        runner.admit(task(job_id, spec))
    facts = run_to_end(runner)
    assert not failures(facts)
    assert set(remedies(facts)) == {Remedy.SMALLER}
    refused = [fact.bucket for fact in facts if isinstance(fact, BatchFailed)]
    assert refused == sorted(set(refused), reverse=True), "no bucket is tried again once it was too large"
    assert min(refused) > room
    for job_id, spec in specs.items():
        assert_equal(results(facts, job_id), oracle(spec))


def test_a_row_that_does_not_fit_by_itself_is_its_jobs_failure(bundle: Bundle) -> None:
    engine = on_cpu(Cramped, bundle, Stage.COARSE)
    engine.room = 0
    runner = runner_for(bundle, {Stage.COARSE: engine})
    for job_id in ("one", "other"):
        runner.admit(task(job_id, spec_of()))
    facts = run_to_end(runner)
    assert {fact.job_id for fact in failures(facts)} == {"one", "other"}
    assert all("out of memory" in fact.error.message for fact in failures(facts))


@pytest.mark.parametrize(("every", "jobs"), [(4, 1), (5, 1), (4, 2), (5, 2)])
def test_a_unit_that_starts_again_draws_the_same(bundle: Bundle, oracle: Oracle, every: int, jobs: int) -> None:
    engine = on_cpu(Faltering, bundle, Stage.COARSE)
    engine.every = every
    runner = runner_for(bundle, {Stage.COARSE: engine})
    specs = {f"job-{seed}": spec_of(seed=seed, sampler="ddpm", num_frames=32) for seed in range(jobs)}
    for job_id, spec in specs.items():
        runner.admit(task(job_id, spec))
    facts = run_to_end(runner)
    assert not failures(facts)
    assert remedies(facts)[0] is (Remedy.AGAIN if jobs == 1 else Remedy.SPLIT)
    for job_id, spec in specs.items():
        assert_equal(results(facts, job_id), oracle(spec))


def test_a_job_that_failed_by_itself_has_no_company_until_a_unit_is_done(bundle: Bundle) -> None:
    engine = on_cpu(Faltering, bundle, Stage.COARSE)
    engine.every = 2
    runner = runner_for(bundle, {Stage.COARSE: engine})
    for job_id in ("one", "other"):
        runner.admit(task(job_id, spec_of(num_inference_steps=4)))
    facts = run_to_end(runner)
    begin = remedies(facts).index(Remedy.AGAIN)
    failed = [place for place, fact in enumerate(facts) if isinstance(fact, BatchFailed)]
    after = facts[failed[begin] :]
    shared = [fact for fact in after if isinstance(fact, TickRan) and fact.jobs > 1]
    assert not shared
    assert {fact.job_id for fact in failures(facts)} == {"one", "other"}


@pytest.mark.parametrize(
    "complaint",
    [
        torch.AcceleratorError("an unknown error"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("TensorRT: Cuda failure: 700"),
    ],
)
def test_an_error_of_the_device_escapes(bundle: Bundle, complaint: Exception) -> None:
    engine = on_cpu(Lost, bundle, Stage.COARSE)
    engine.complaint = complaint
    runner = runner_for(bundle, {Stage.COARSE: engine})
    runner.admit(task("job", spec_of()))
    with pytest.raises(type(complaint)) as raised:
        run_to_end(runner)
    assert raised.value is complaint


def test_a_deadline_ends_its_job_at_the_next_tick(bundle: Bundle, oracle: Oracle) -> None:
    now = 1000.0
    runner = runner_for(bundle, clock=lambda: now)
    runner.admit(task("patient", spec_of(seed=2)))
    runner.admit(task("late", spec_of(deadline_seconds=60.0), deadline_in=5.0))
    facts = [*runner.tick(), *runner.tick()]
    now += 4.9
    facts += runner.tick()
    assert not failures(facts)
    now += 0.1
    facts += runner.tick()
    (failed,) = failures(facts)
    assert failed.job_id == "late"
    assert isinstance(failed.error, DeadlineExceeded)
    assert "within 60 s of its submission" in failed.error.message
    ended = len(facts)
    facts += run_to_end(runner)
    assert all(getattr(fact, "job_id", "") != "late" for fact in facts[ended:])
    assert all(fact.jobs == 1 for fact in facts[ended:] if isinstance(fact, TickRan))
    assert_equal(results(facts, "patient"), oracle(spec_of(seed=2)))


def test_a_suspect_that_fails_lets_the_others_go_on(bundle: Bundle, oracle: Oracle) -> None:
    runner = runner_for(bundle, {Stage.REFINE: on_cpu(Poisoned, bundle, Stage.REFINE)})
    drawn = oracle(spec_of(num_frames=16))["coarse/0"]
    kept = {"coarse/0": np.ones_like(drawn)}
    bad = task("bad", spec_of(num_frames=16), finished=kept, done=frozenset(kept), alone=RunAlone.UNTIL_UNIT)
    runner.admit(task("good", spec_of()))
    runner.admit(bad)
    facts = run_to_end(runner)
    assert [fact.job_id for fact in failures(facts)] == ["bad"]
    assert remedies(facts) == [Remedy.AGAIN] * (MAX_ATTEMPTS - 1) + [Remedy.NONE]
    assert any(isinstance(fact, TaskFinished) and fact.job_id == "good" for fact in facts)
    assert_equal(results(facts, "good"), oracle(spec_of()))


def test_a_unit_that_cannot_start_ends_its_job_and_no_other(bundle: Bundle, oracle: Oracle) -> None:
    runner = runner_for(bundle)
    spec = spec_of(num_frames=36, slow_motion=2)
    drawn = oracle(spec)
    damaged = {"coarse/1": drawn["coarse/1"][:, :5, :5]}  # found when the grid between it and the first one starts
    runner.admit(task("bad", spec, finished=damaged, done=frozenset(damaged)))
    runner.admit(task("good", spec))
    facts = run_to_end(runner)
    assert [fact.job_id for fact in failures(facts)] == ["bad"]
    assert remedies(facts) == [Remedy.NONE]
    assert_equal(results(facts, "good"), drawn)
