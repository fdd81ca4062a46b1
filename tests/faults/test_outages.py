"""Each process of a running service killed, or stopped for a while, with four jobs in flight and readers at work.

Nothing is lost or doubled: every reader hears every event once, every byte is that of an undisturbed run, nothing is
computed twice unless its worker died, and no job is claimed again but for a worker that was dead or out for long.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from models.bundle import Bundle
from tests.faults.host import API, SERVER, SUPERVISOR, Host
from tests.faults.ordeal import Ordeal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STOPPED_SECONDS = 15.0
WORKER = "worker-1"
UNITS_UNDER_WAY = 4
"""Most units of one job that a worker is at; so many are lost with it, and done by another."""


@pytest.fixture(scope="module")
def host(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Two workers, and the leases that are set by default."""
    directory = tmp_path_factory.mktemp("h")
    host = Host(directory, workers=2, tick_seconds=0.03, environment={"GRIDIT_BUNDLES": str(tiny.path)})
    host.start()
    yield host
    host.close()


@dataclass
class Report:
    """What is printed of each fault."""

    capsys: pytest.CaptureFixture[str]

    def tell(self, fault: str, ordeal: Ordeal, began: float) -> None:
        with ordeal.host.books() as books:
            attempts = sorted(books.job(job_id).attempt for job_id in ordeal.job_ids)
        redone = sum(ordeal.host.notes.redone(job_id) for job_id in ordeal.job_ids)
        with self.capsys.disabled():
            print(f"\n  {fault}: attempts {attempts}, {redone} units computed again, {ordeal.told}, ", end="")
            print(f"all done after {time.monotonic() - began:.0f} s", end="")


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    return Report(capsys)


@pytest.fixture
def ordeal(host: Host, tiny: Bundle) -> Ordeal:
    """Four jobs in flight."""
    ordeal = Ordeal(host, tiny)
    ordeal.submit(4, num_frames=96, num_inference_steps=12)
    ordeal.in_hand()
    return ordeal


def untouched(ordeal: Ordeal) -> bool:
    """Whether no job was claimed twice and no unit computed twice."""
    once = all(job.attempt == 1 for job in ordeal.passed())
    return once and not any(ordeal.host.notes.redone(job_id) for job_id in ordeal.job_ids)


@pytest.mark.parametrize("down", [1.0, 10.0])
def test_redis_killed_and_back_after_a_while(host: Host, ordeal: Ordeal, report: Report, down: float) -> None:
    began = time.monotonic()
    with host.stopped(SUPERVISOR):  # which would start it at once
        host.kill(SERVER)
        time.sleep(down)
    assert untouched(ordeal)
    report.tell(f"Redis killed, down {down:g} s", ordeal, began)


def test_the_api_killed(host: Host, ordeal: Ordeal, report: Report) -> None:
    began = time.monotonic()
    host.kill(API)
    assert untouched(ordeal)
    report.tell("API killed", ordeal, began)


@pytest.mark.parametrize("name", [SERVER, API, SUPERVISOR])
def test_stopped_for_a_while(host: Host, ordeal: Ordeal, report: Report, name: str) -> None:
    began = time.monotonic()
    with host.stopped(name):
        time.sleep(STOPPED_SECONDS)
    assert untouched(ordeal)
    report.tell(f"{name} stopped for {STOPPED_SECONDS:g} s", ordeal, began)


def test_a_worker_stopped_for_a_while_loses_its_jobs_to_the_other_and_no_more(
    host: Host, tiny: Bundle, report: Report
) -> None:
    """Longer jobs: they run on the other one when it wakes up."""
    ordeal = Ordeal(host, tiny)
    ordeal.submit(4, num_frames=96, num_inference_steps=30)
    ordeal.in_hand()
    began = time.monotonic()
    with host.books() as books:
        state = books.worker(host.process(WORKER).instance)
        assert state is not None
        with host.stopped(WORKER):
            time.sleep(STOPPED_SECONDS)
        assert len(books.unfinished(ordeal.job_ids)) == 4, "too fast for this test"
    for job in ordeal.passed():
        assert job.attempt <= (2 if job.id in state.running else 1)
        assert host.notes.redone(job.id) <= UNITS_UNDER_WAY
    report.tell(f"{WORKER} stopped for {STOPPED_SECONDS:g} s with {len(state.running)} jobs", ordeal, began)


def test_workers_that_are_all_stopped_for_a_while_keep_their_jobs(host: Host, ordeal: Ordeal, report: Report) -> None:
    began = time.monotonic()
    with host.stopped("worker-2"), host.stopped(WORKER):
        time.sleep(STOPPED_SECONDS)
    assert untouched(ordeal)
    report.tell(f"both workers stopped for {STOPPED_SECONDS:g} s", ordeal, began)


def test_the_supervisor_killed_and_all_with_it(host: Host, ordeal: Ordeal, report: Report) -> None:
    began = time.monotonic()
    host.kill(SUPERVISOR)
    again = host.start()
    with host.books() as books:
        assert not any(books.job(job_id).suspect for job_id in ordeal.job_ids), "an outage is no job's fault"
    assert all(job.attempt == 2 for job in ordeal.passed())
    report.tell(f"supervisor killed, ready again after {again:.1f} s", ordeal, began)
