"""Workers that serve different bundles: a job goes only where its bundle is, and blocks nobody while it is nowhere."""

from __future__ import annotations

import pytest
import redis

from tests.integration.conftest import Workers
from tests.integration.following import check_whole, ended, submit, until
from tests.twins import bundle_hash, spec
from workers.contracts.job import JobSpec, JobStatus, Priority
from workers.queue.client import JobQueue

pytestmark = pytest.mark.anyio

SKY, LAVA, SEA = "sky", "lava", "sea"


def job_for(model: str, **changes: object) -> JobSpec:
    return spec(model=model, bundle_hash=bundle_hash(model), **changes)  # type: ignore[arg-type]


async def all_ready(queue: JobQueue, count: int) -> None:
    await until(queue.workers, lambda states: [state.phase for state in states] == ["ready"] * count)


async def test_jobs_go_where_their_bundle_is_and_wait_for_it_where_it_is_not(
    queue: JobQueue, workers: Workers, database: redis.Redis
) -> None:
    homes = {SKY: "w1", LAVA: "w2"}
    for model, name in homes.items():
        workers.start(name, model=model, tick_seconds=0.005)
    await all_ready(queue, 2)
    nowhere = [await submit(queue, job_for(SEA, priority=Priority.HIGH, seed=seed)) for seed in (1, 2)]
    served = {await submit(queue, job_for(model, seed=seed)): model for seed in range(4) for model in homes}
    for job_id, model in served.items():
        await ended(queue, job_id)
        await check_whole(queue, workers.data_dir, job_id)
        assert database.hget(f"rq:job:{job_id}", "worker_name") == homes[model]
    for job_id in nowhere:
        waiting = await queue.get(job_id)
        assert (waiting.status, waiting.attempt) == (JobStatus.QUEUED, 0)
    assert (await queue.queue_depths())["high"] == 2
    workers.start("w3", model=SEA, tick_seconds=0.005)
    for job_id in nowhere:
        await ended(queue, job_id)
        await check_whole(queue, workers.data_dir, job_id)
        assert database.hget(f"rq:job:{job_id}", "worker_name") == "w3"


async def test_each_worker_says_what_it_serves(queue: JobQueue, workers: Workers) -> None:
    workers.start("w1", model=SKY)
    workers.start("w2", model=LAVA)
    await all_ready(queue, 2)
    assert {state.name: state.models for state in await queue.workers()} == {"w1": (SKY,), "w2": (LAVA,)}
    assert set(await queue.catalogue()) >= {SKY, LAVA}


async def test_a_worker_of_another_bundle_leaves_a_dead_ones_jobs_alone(queue: JobQueue, workers: Workers) -> None:
    short = {"lease_seconds": 1.0, "beat_seconds": 0.2}
    first = workers.start("w1", model=SKY, **short)
    workers.start("w2", model=LAVA, **short)
    await all_ready(queue, 2)
    job_id = await submit(queue, job_for(SKY, frames=24, steps=8))
    await until(lambda: queue.get(job_id), lambda job: job.refined_done > 0)
    first.kill()
    first.join()
    lost = await until(lambda: queue.get(job_id), lambda job: job.status is JobStatus.QUEUED)
    assert lost.attempt == 1
    other = await submit(queue, job_for(LAVA))
    assert (await ended(queue, other)).status is JobStatus.COMPLETED
    assert (await queue.get(job_id)).status is JobStatus.QUEUED
    workers.start("w3", model=SKY, **short)
    assert (await ended(queue, job_id)).attempt == 2
    await check_whole(queue, workers.data_dir, job_id)
