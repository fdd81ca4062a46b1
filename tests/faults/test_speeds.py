"""Two workers of different speed on one queue: each does its share, and they are done together. Figures are printed.

The twins take a time for each row of a batch, as an engine does that is busy, so what is ideal is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Server, Workers
from tests.integration.following import check_whole, ended, submit, until
from tests.twins import plan, spec
from workers.contracts.job import Job
from workers.queue.client import JobQueue

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]

JOBS = 24
ROW_SECONDS = {"fast": 0.01, "slow": 0.04}
WISH = spec(frames=8, steps=10)
WORST = 1.25
"""Times the ideal makespan."""


@dataclass(frozen=True)
class Outcome:
    """What came of the jobs, in rows and seconds after the first submission."""

    rows: dict[str, int]
    last_end: dict[str, float]

    @property
    def makespan(self) -> float:
        return max(self.last_end.values())

    @property
    def ideal(self) -> float:
        """Of all the rows, on both without a pause."""
        return sum(self.rows.values()) / sum(1 / seconds for seconds in ROW_SECONDS.values())


async def test_each_does_its_share_and_they_end_together(server: Server, tmp_path: Path) -> None:
    workers, queue = Workers(server.url, tmp_path), JobQueue.connect(server.url)
    try:
        for name, seconds in ROW_SECONDS.items():
            workers.start(name, tick_seconds=0.0, row_seconds=seconds)
        await until(queue.workers, lambda states: [state.phase for state in states] == ["ready"] * 2)
        ids = [await submit(queue, WISH.evolve(seed=seed)) for seed in range(JOBS)]
        done = {job_id: await ended(queue, job_id) for job_id in ids}
        for job_id in ids:
            await check_whole(queue, workers.data_dir, job_id)
        homes = {job_id: str(await queue.redis.hget(f"rq:job:{job_id}", "worker_name")) for job_id in ids}
    finally:
        await queue.close()
        workers.kill_all()
    outcome = summed(done, homes)
    print(f"\nrows {outcome.rows}, last ends {outcome.last_end}, ideal {outcome.ideal:.2f} s")
    print(f"makespan {outcome.makespan:.2f} s, {outcome.makespan / outcome.ideal:.2f} of the ideal")
    assert 3.0 <= outcome.rows["fast"] / outcome.rows["slow"] <= 5.0
    assert outcome.makespan <= WORST * outcome.ideal


def summed(done: dict[str, Job], homes: dict[str, str]) -> Outcome:
    """By worker."""
    rows = len(plan(WISH)) * WISH.num_inference_steps
    began = min(job.created_at for job in done.values())
    ends = {
        name: [job.completed_at or 0.0 for job_id, job in done.items() if homes[job_id] == name] for name in ROW_SECONDS
    }
    return Outcome(
        {name: rows * len(times) for name, times in ends.items()},
        {name: round(max(times) - began, 2) for name, times in ends.items()},
    )
