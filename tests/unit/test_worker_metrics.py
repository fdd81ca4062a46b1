"""Metrics are projections of facts; names and labels are what dashboards and rules ask for."""

from __future__ import annotations

import pytest

from tests.twins import TwinRunner, spec
from workers.contracts.catalogue import EngineInfo
from workers.contracts.job import Job, JobStatus, Stage
from workers.facts import Announced, Beaten, Claimed, Ended, FramePublished, Left, Redelivered, WorkerFact, WorkerReady
from workers.metrics import REGISTRY, project
from workers.tasks import (
    BatchFailed,
    BuildOutcome,
    EngineBuildEnded,
    EngineBuildStarted,
    EngineKept,
    EngineSwapped,
    Remedy,
    TickRan,
)

JOB = Job(id="j", spec=spec(), created_at=10.0, started_at=12.5, attempt=1)
FAILED_BUILD = EngineBuildEnded("twin", "openvino", "bf16", BuildOutcome.FAILED, 12.0, "why")
ENDED = JOB.evolve(status=JobStatus.COMPLETED, completed_at=20.0, stage_durations={"queue": 2.5, "encode": 1.0})

CASES: list[tuple[WorkerFact, str, dict[str, str], float]] = [
    (Claimed(JOB), "gridit_queue_wait_seconds_sum", {}, 2.5),
    (Ended(ENDED), "gridit_jobs_total", {"model": "twin", "status": "completed"}, 1),
    (Ended(ENDED), "gridit_job_duration_seconds_sum", {}, 10.0),
    (Ended(ENDED), "gridit_job_attempts_sum", {}, 1),
    (Ended(ENDED), "gridit_stage_duration_seconds_sum", {"stage": "encode"}, 1.0),
    (FramePublished("j", Stage.COARSE, 0, 3.0, None), "gridit_time_to_first_frame_seconds_sum", {"stage": "coarse"}, 3),
    (FramePublished("j", Stage.COARSE, 1, 3.0, 0.5), "gridit_time_to_first_frame_seconds_sum", {"stage": "coarse"}, 0),
    (FramePublished("j", Stage.REFINED, 1, 3.0, 0.5), "gridit_frame_interval_seconds_sum", {"stage": "refined"}, 0.5),
    (FramePublished("j", Stage.REFINED, 1, 3.0, None), "gridit_frame_interval_seconds_count", {"stage": "refined"}, 0),
    (FramePublished("j", Stage.REFINED, 1, 3.0, None), "gridit_frames_total", {"stage": "refined"}, 1),
    (TickRan("refine", 12, 16, 0.25, 2), "gridit_denoise_step_seconds_sum", {"stage": "refine"}, 0.25),
    (TickRan("refine", 12, 16, 0.25, 2), "gridit_batch_size_sum", {"stage": "refine"}, 12),
    (TickRan("refine", 16, 16, 0.25, 2, "full"), "gridit_batch_stop_total", {"reason": "full"}, 1),
    (TickRan("refine", 12, 16, 0.25, 2), "gridit_batch_stop_total", {"reason": "no_more"}, 1),
    (BatchFailed("refine", 12, 16, 2, Remedy.SPLIT, "why"), "gridit_batch_failures_total", {"remedy": "split"}, 1),
    (Redelivered("j", "queued"), "gridit_jobs_redelivered_total", {}, 1),
    (FAILED_BUILD, "gridit_engine_build_seconds_sum", {"engine": "openvino", "outcome": "failed"}, 12),
    (EngineBuildStarted("twin", "openvino", "bf16"), "gridit_engine_build_seconds_count", {}, 0),
]


@pytest.mark.parametrize(("fact", "name", "labels", "change"), CASES)
def test_a_fact_changes_its_metric(fact: WorkerFact, name: str, labels: dict[str, str], change: float) -> None:
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    project(fact)
    assert (REGISTRY.get_sample_value(name, labels) or 0.0) - before == pytest.approx(change)


def test_gauges_tell_of_the_worker_itself() -> None:
    project(WorkerReady((), 1.0))
    project(Beaten(at=100.0, progress_at=None))
    assert REGISTRY.get_sample_value("gridit_worker_up") == 1
    assert REGISTRY.get_sample_value("gridit_worker_heartbeat_timestamp_seconds") == 100.0
    assert REGISTRY.get_sample_value("gridit_worker_progress_timestamp_seconds") == 100.0
    project(Beaten(at=110.0, progress_at=104.0))
    assert REGISTRY.get_sample_value("gridit_worker_progress_timestamp_seconds") == 104.0


def info(engine: str, net: str = "coarse") -> float | None:
    labels = {"model": "twin", "stage": net, "engine": engine, "precision": "fp32"}
    return REGISTRY.get_sample_value("gridit_engine_info", labels)


def test_the_engine_that_serves_is_told_and_whether_it_is_the_one_that_should() -> None:
    (plain,) = TwinRunner().catalogue()
    told = EngineInfo(engine="torch", precision="fp32")

    def fallback(**changes: str) -> float | None:
        project(Announced((plain.evolve(engines={"coarse": told.evolve(**changes)}),)))
        return REGISTRY.get_sample_value("gridit_engine_fallback", {"model": "twin", "stage": "coarse"})

    assert (fallback(), info("torch")) == (0, 1)
    assert fallback(building="openvino fp32") == 1
    assert fallback(failed="openvino fp32: why") == 1
    project(EngineSwapped("twin", "coarse", "openvino", "fp32", "torch", "fp32", "faster"))
    assert (info("torch"), info("openvino")) == (0, 1)
    project(EngineKept("twin", "coarse", "openvino", "fp32", "slower"))
    assert (info("torch"), info("openvino")) == (0, 1)


def test_a_second_claim_and_a_leaving_job_are_no_wait() -> None:
    before = REGISTRY.get_sample_value("gridit_queue_wait_seconds_count")
    project(Claimed(JOB.evolve(attempt=2)))
    project(Left("j", 1, "queued"))
    assert REGISTRY.get_sample_value("gridit_queue_wait_seconds_count") == before


def test_durations_reach_twenty_minutes_and_no_metric_has_ids() -> None:
    for metric in REGISTRY.collect():
        assert metric.name.startswith("gridit_")
        for sample in metric.samples:
            assert not {"job_id", "id", "worker"} & set(sample.labels)
    bounds = {
        s.labels["le"] for m in REGISTRY.collect() for s in m.samples if s.name.endswith("duration_seconds_bucket")
    }
    assert "1200.0" in bounds
