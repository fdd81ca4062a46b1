"""kill -9 of a worker in the middle of its jobs: every frame once, the same bytes, nothing that was kept done twice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.faults.crew import PATIENCE, Crew, tiny_spec
from tests.faults.noting import Kept
from tests.faults.oracle import undisturbed
from tests.faults.readers import assert_whole
from tests.integration.conftest import Server
from tests.integration.up_fixtures import wait_for
from workers.contracts.job import Job

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STRIKES = 30
IN_FLIGHT = 4
GOES_ON_SECONDS = 6.0
"""By when another worker has got on with the jobs of one that died, by lease alone."""
STEADY_SECONDS = 6.0
"""A worker younger than lease and two beats does not judge others: it cannot know whether Redis was away."""


@pytest.fixture
def crew(server: Server, tiny: Bundle, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(server, tmp_path, bundle=tiny.path)
    yield crew
    crew.close()


def test_thirty_deaths_at_random_moments_cost_no_frame_and_no_kept_unit(
    crew: Crew, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    dice, kept = random.Random(30), Kept(crew.notes)
    job_ids: list[str] = []
    crew.start("w0")
    for strike in range(STRIKES):
        missing = IN_FLIGHT - len(crew.books.unfinished(job_ids))
        job_ids += crew.submit(*(tiny_spec(tiny, seed=len(job_ids) + more) for more in range(missing)))
        crew.await_in_hand(job_ids)
        time.sleep(dice.uniform(0.0, 0.6))
        in_hand = crew.await_in_hand(job_ids)
        crew.kill(f"w{strike}")
        for job in in_hand:
            kept.note(crew.books.job(job.id), crew.books.persisted(job.id))
        crew.release(f"w{strike}")
        crew.start(f"w{strike + 1}")
    jobs = crew.await_end(job_ids)
    for job in jobs:
        assert_whole(crew.books.events(job.id), count=job.frames_total)
        assert crew.delivered(job.id) == undisturbed(job.spec, tiny.path)
        assert kept.done_again(job.id) == []
    with capsys.disabled():
        print(f"\n  {STRIKES} deaths of a worker, {cost(crew, jobs)}")


def cost(crew: Crew, jobs: list[Job]) -> str:
    """What the deaths cost."""
    made = sum(len(crew.notes.units(job.id)) for job in jobs)
    redone = sum(crew.notes.redone(job.id) for job in jobs)
    most = max(job.attempt for job in jobs)
    return f"{len(jobs)} jobs in up to {most} attempts: of {made} units computed {redone} were not kept in time"


def test_without_a_supervisor_another_worker_goes_on_when_the_lease_ends(
    crew: Crew, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the leases that are set by default. Those that may be to blame go on one after another, each by itself."""
    crew.start("old", tick_seconds=0.02)
    job_ids = crew.submit(*(tiny_spec(tiny, seed=seed, frames=256, steps=8) for seed in range(IN_FLIGHT)))
    crew.await_in_hand(job_ids)
    crew.start("other", tick_seconds=0.02)
    assert wait_for(partial(crew.ready, "other"), seconds=PATIENCE)
    time.sleep(STEADY_SECONDS)
    assert len(crew.await_in_hand(job_ids)) == IN_FLIGHT, "too fast for this test"
    crew.kill("old")
    killed = time.time()
    assert wait_for(lambda: len(went_on(crew, since=killed)) == IN_FLIGHT, seconds=PATIENCE)
    waits = sorted(began - killed for began in went_on(crew, since=killed).values())
    with capsys.disabled():
        print(
            f"\n  the four jobs were on the other worker after {', '.join(f'{wait:.1f} s' for wait in waits)}", end=""
        )
    assert waits[0] <= GOES_ON_SECONDS
    for job in crew.await_end(job_ids):
        assert crew.delivered(job.id) == undisturbed(job.spec, tiny.path)


def went_on(crew: Crew, *, since: float) -> dict[str, float]:
    """By job: when the first batch began after that moment with it in hand."""
    later = [tick for tick in reversed(crew.notes.ticks()) if tick.began > since]
    return {job_id: tick.began for tick in later for job_id in tick.jobs}
