"""Cancelling a running job, and a deadline that passes, through a real service: the device is free, the frames stay."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle import Bundle
from service.client import Client
from tests.faults.host import Host
from tests.faults.noting import Within
from tests.faults.ordeal import Ordeal
from workers.contracts.job import Job, JobStatus, Stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

TICK_SECONDS = 0.25
"""Long enough to tell a tick from the next."""


@pytest.fixture(params=list(Within))
def ordeal(request: pytest.FixtureRequest, tiny: Bundle, tmp_path: Path) -> Iterator[Ordeal]:
    """A host with one worker, around the twin or the real runner."""
    environment = {"GRIDIT_BUNDLES": str(tiny.path)}
    host = Host(tmp_path, within=request.param, tick_seconds=TICK_SECONDS, environment=environment)
    host.start()
    yield Ordeal(host, tiny if request.param is Within.RUNNER else None)
    host.close()


def test_a_cancelled_job_is_off_the_device_with_the_tick_that_runs_and_keeps_its_frames(
    ordeal: Ordeal, capsys: pytest.CaptureFixture[str]
) -> None:
    stays, goes = ordeal.submit(2, num_frames=24, num_inference_steps=3)
    ordeal.in_hand()
    with ordeal.host.client() as client:
        client.cancel(goes)
        asked = time.time()
        there, gone = ordeal.ended()
        ordeal.check(there, client)
        assert (gone.id, gone.status, gone.error) == (goes, JobStatus.CANCELLED, None)
        assert frames_kept(client, gone) > 0
    later = [tick for tick in ordeal.host.notes.ticks() if tick.began > asked and goes in tick.jobs]
    assert gone.completed_at is not None
    with capsys.disabled():
        print(f"\n  cancelled: ended {gone.completed_at - asked:.2f} s later, {len(later)} more ticks with it", end="")
    assert later == [], "only the tick that ran already"
    assert any(tick.began > asked and stays in tick.jobs for tick in ordeal.host.notes.ticks())


def test_a_job_that_is_late_fails_with_its_reason_and_keeps_its_frames(
    ordeal: Ordeal, capsys: pytest.CaptureFixture[str]
) -> None:
    ordeal.submit(1, num_frames=24, num_inference_steps=3)
    ordeal.submit(1, num_frames=200, num_inference_steps=20, deadline_seconds=12.0)
    with ordeal.host.client() as client:
        there, late = ordeal.ended()
        ordeal.check(there, client)
        assert late.error is not None
        assert (late.status, late.error.code) == (JobStatus.FAILED, "deadline_exceeded")
        assert "12 s" in late.error.message
        assert frames_kept(client, late) > 0
    assert late.completed_at is not None
    with capsys.disabled():
        print(f"\n  deadline of 12 s: failed {late.completed_at - late.created_at - 12:.2f} s after it", end="")
    assert late.completed_at - late.created_at - 12 <= 2 * TICK_SECONDS + 1.0


def frames_kept(client: Client, job: Job) -> int:
    """How many frames can be had; those are all that were made, with the bytes that were announced."""
    told = {
        (Stage(event.data["stage"]), event.data["index"]): event.data["sha256"]
        for event in client.events(job.id)
        if event.type == "video.frame"
    }
    assert len(told) == job.coarse_done + job.refined_done
    for (stage, index), digest in told.items():
        assert hashlib.sha256(client.frame(job.id, index, stage=stage)).hexdigest() == digest
    return len(told)
