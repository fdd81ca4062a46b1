"""Jobs that hang a worker's engine, or take its process down: the worker is replaced, their neighbours lose nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.host import Host
from tests.faults.noting import Within
from tests.faults.ordeal import Ordeal
from workers.contracts.job import JobStatus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SETTLED_TICKS = 120
"""So many ticks, and the worker knows how long one takes."""


@pytest.fixture
def ordeal(tmp_path: Path) -> Iterator[Ordeal]:
    """A host with one worker around the twin."""
    host = Host(tmp_path, within=Within.TWIN, tick_seconds=0.02)
    host.start()
    yield Ordeal(host, None)
    host.close()


@pytest.mark.parametrize("wish", ["hang", "seize"])
def test_a_hung_engine_costs_its_worker_and_no_job(
    ordeal: Ordeal, wish: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`seize` holds the interpreter's lock as well, so that no thread of the process runs any more."""
    host = ordeal.host
    ordeal.submit(2, num_frames=60, num_inference_steps=30)
    ordeal.in_hand()
    time.sleep(SETTLED_TICKS * 0.02)
    before = host.process("worker-1")
    ordeal.submit(1, metadata={"twin": f"{wish}:1"})
    began = time.monotonic()
    while before.alive:
        assert time.monotonic() - began < 100, host.said
        time.sleep(0.05)
    ended = time.monotonic() - began
    jobs = ordeal.passed()
    with capsys.disabled():
        print(f"\n  {wish}: the worker ended after {ended:.0f} s, all jobs done after ", end="")
        print(f"{time.monotonic() - began:.0f} s, attempts {[job.attempt for job in jobs]}", end="")
    assert [job.attempt for job in jobs] == [2, 2, 2]
    assert host.process("worker-1") != before


def test_a_job_that_kills_its_worker_each_time_fails_alone(ordeal: Ordeal, capsys: pytest.CaptureFixture[str]) -> None:
    ordeal.submit(1, num_frames=120, num_inference_steps=20)
    ordeal.in_hand()
    ordeal.submit(1, num_frames=40, metadata={"twin": "die"})
    ordeal.submit(2, num_frames=40)
    first, bad, *rest = ordeal.ended()
    with ordeal.host.client() as client:
        for job in (first, *rest):
            ordeal.check(job, client)
    assert bad.error is not None
    assert (bad.status, bad.error.code, bad.attempt) == (JobStatus.FAILED, "worker_lost", 3)
    with capsys.disabled():
        print(f"\n  poison failed in {bad.attempt} attempts; its neighbours ", end="")
        print(f"completed in {[job.attempt for job in (first, *rest)]}", end="")
