"""kill -9 of a worker under `gridit up`: how soon its jobs are free again, and how soon they move again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from models.bundle import Bundle
from tests.faults.books import Books
from tests.faults.host import Host
from tests.faults.noting import Kept
from tests.faults.ordeal import Ordeal
from tests.integration.up_fixtures import wait_for
from workers.contracts.job import Job, JobStatus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STRIKES = 4
RELEASED_SECONDS = 0.1
"""From the kill until its jobs are back in the queue."""
FIRST_STEP_SECONDS = 1.0
"""From when the new worker has loaded until the end of its first batch."""


@pytest.fixture
def host(tiny: Bundle, tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, tick_seconds=0.02, environment={"GRIDIT_BUNDLES": str(tiny.path)})
    host.start()
    yield host
    host.close()


def test_a_killed_workers_jobs_are_free_at_once_and_move_when_the_next_one_has_loaded(
    host: Host, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    dice, kept, ordeal = random.Random(5), Kept(host.notes), Ordeal(host, tiny)
    ordeal.submit(4, num_frames=96, num_inference_steps=12)
    releases, cold_starts, first_steps = [], [], []
    with host.books() as books:
        for strike in range(STRIKES):
            ordeal.in_hand()
            time.sleep(dice.uniform(0.0, 0.5))
            jobs = ordeal.in_hand()
            killed = host.kill("worker-1")
            releases.append(released(books, jobs, since=killed))
            for job in jobs:
                kept.note(job, books.persisted(job.id))
            loaded = next_loaded(host, after=strike + 1)
            cold_starts.append(loaded - killed)
            first_steps.append(first_step(host, since=loaded) - loaded)
    with capsys.disabled():
        print(f"\n  jobs free {milliseconds(releases)} after the kill, ", end="")
        print(f"a new worker loaded after {seconds(cold_starts)}, its first step {milliseconds(first_steps)} later")
    for job in ordeal.passed():
        assert kept.done_again(job.id) == []
    assert median(releases) <= RELEASED_SECONDS  # on a busy machine some take longer
    assert median(first_steps) <= FIRST_STEP_SECONDS


def released(books: Books, jobs: list[Job], *, since: float) -> float:
    """Seconds until none of these jobs is with the worker that had it."""
    while any(books.job(job.id).status is JobStatus.IN_PROGRESS for job in jobs):
        assert time.time() - since < 60
        time.sleep(0.002)
    return time.time() - since


def next_loaded(host: Host, *, after: int) -> float:
    """When the next worker had its engine, after so many before it."""
    assert wait_for(lambda: len(host.notes.loaded()) > after, seconds=60)
    return host.notes.loaded()[after]


def first_step(host: Host, *, since: float) -> float:
    """When the first batch after that moment ended."""
    assert wait_for(lambda: host.notes.ticks()[-1].began > since, seconds=60)
    return next(tick.ended for tick in host.notes.ticks() if tick.began > since)


def milliseconds(figures: list[float]) -> str:
    """Median and most."""
    return f"{1000 * median(figures):.0f} ms (most {1000 * max(figures):.0f})"


def seconds(figures: list[float]) -> str:
    """Median and most."""
    return f"{median(figures):.1f} s (most {max(figures):.1f})"
