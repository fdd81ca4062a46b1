"""SIGTERM of a worker with four jobs in hand: it goes in time, they go on elsewhere at the same frame, at no cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.faults.crew import Crew, tiny_spec
from tests.faults.noting import Kept
from tests.faults.oracle import undisturbed
from tests.faults.readers import assert_whole
from tests.integration.conftest import Server
from tests.integration.up_fixtures import wait_for
from workers.contracts.job import JobStatus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

OVERHEAD_SECONDS = 2.0
"""For the batch that runs, for giving back and for the end of the process, on a busy machine."""
ENOUGH_SECONDS = 60.0


@pytest.fixture
def crew(server: Server, tiny: Bundle, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(server, tmp_path, bundle=tiny.path)
    yield crew
    crew.close()


@pytest.mark.parametrize("drain", [0.0, 1.0])
def test_what_is_not_done_in_time_goes_on_elsewhere_and_costs_no_attempt(
    crew: Crew, tiny: Bundle, drain: float, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kept(crew.notes)
    crew.start("old", tick_seconds=0.02, drain_seconds=drain)
    job_ids = crew.submit(*(tiny_spec(tiny, seed=seed, frames=96, steps=16) for seed in range(4)))
    crew.await_in_hand(job_ids)
    assert wait_for(lambda: all(crew.books.job(job_id).refined_done for job_id in job_ids), seconds=60)
    job_ids += crew.submit(tiny_spec(tiny, seed=4, steps=50))  # which has nothing to show yet
    crew.await_in_hand(job_ids)
    took = stopped(crew, "old")
    for job_id in job_ids:
        job = crew.books.job(job_id)
        assert (job.status, job.attempt, job.stalled_attempts, job.suspect) == (JobStatus.QUEUED, 1, 0, False)
        kept.note(job, crew.books.persisted(job_id))
    made = [crew.books.job(job_id).refined_done for job_id in job_ids]
    crew.start("new", tick_seconds=0.0)
    for job in crew.await_end(job_ids):
        assert_whole(crew.books.events(job.id), count=job.frames_total)
        assert crew.delivered(job.id) == undisturbed(job.spec, tiny.path)
        assert kept.done_again(job.id) == []
    with capsys.disabled():
        print(f"\n  drain {drain:g} s: gone after {took:.2f} s, jobs left at refined frames {made}", end="")
    assert took <= drain + OVERHEAD_SECONDS


def test_with_time_enough_it_finishes_what_it_has_and_takes_nothing_more(
    crew: Crew, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    crew.start("old", tick_seconds=0.02, drain_seconds=ENOUGH_SECONDS, slots=4)
    job_ids = crew.submit(*(tiny_spec(tiny, seed=seed) for seed in range(4)))
    crew.await_in_hand(job_ids)
    waiting = crew.submit(tiny_spec(tiny, seed=4))
    took = stopped(crew, "old")
    assert [crew.books.job(job_id).status for job_id in job_ids] == [JobStatus.COMPLETED] * 4
    assert [(crew.books.job(job_id).status, crew.books.job(job_id).attempt) for job_id in waiting] == [
        (JobStatus.QUEUED, 0)
    ]
    with capsys.disabled():
        print(f"\n  drain {ENOUGH_SECONDS:g} s: gone after {took:.2f} s, its four jobs done", end="")
    assert took < ENOUGH_SECONDS


def stopped(crew: Crew, name: str) -> float:
    """Seconds from SIGTERM until the process is gone; it went in good order."""
    began = time.monotonic()
    process = crew.terminate(name)
    process.join(2 * ENOUGH_SECONDS)
    assert process.exitcode == 0
    return time.monotonic() - began
