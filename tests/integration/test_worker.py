"""Worker processes around the twin, a real queue and a real disk: what a user of the queue may rely on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

from tests import twins
from tests.integration.conftest import Server, Workers
from tests.integration.following import check_whole, ended, some_frames, submit, until
from tests.twins import spec
from workers.contracts import keys
from workers.contracts.event import EventType
from workers.contracts.job import Job, JobStatus
from workers.queue.client import JobQueue
from workers.queue.connect import connect_bytes
from workers.queue.release import release

pytestmark = pytest.mark.anyio


async def test_jobs_run_to_their_end_two_at_once(queue: JobQueue, workers: Workers) -> None:
    workers.start("w", slots=2)
    ids = [await submit(queue, spec(frames=10, seed=seed)) for seed in (1, 2, 3)]
    jobs = [await ended(queue, job_id) for job_id in ids]
    for job_id in ids:
        await check_whole(queue, workers.data_dir, job_id)
        assert len(workers.units(job_id)) == len(set(workers.units(job_id))) == 6
    starts = [job.started_at or 0.0 for job in jobs]
    ends = [job.completed_at or 0.0 for job in jobs]
    assert starts[1] < ends[0], "two at once"
    assert starts[2] >= min(ends[:2]), "and no third"


async def test_a_killed_workers_job_goes_on_where_it_was(
    queue: JobQueue, workers: Workers, database: redis.Redis
) -> None:
    dead = workers.start("dead", tick_seconds=0.05)
    ids = [await submit(queue, spec(frames=24, seed=seed)) for seed in (5, 6)]
    for job_id in ids:
        await some_frames(queue, job_id, refined=8)
    dead.kill()
    dead.join()
    kept = {job_id: set(database.hkeys(keys.units(job_id))) for job_id in ids}
    workers.start("next")
    await until(queue.workers, lambda states: any(s.name == "next" and s.phase == "ready" for s in states))
    assert set(release(database, "dead").values()) <= {"queued"}
    for job_id in ids:
        job = await ended(queue, job_id)
        assert job.attempt == 2
        await check_whole(queue, workers.data_dir, job_id)
        assert len(kept[job_id]) >= 4
        assert not kept[job_id] & set(workers.units(job_id, attempt=2)), "nothing persisted is computed again"


async def test_a_lease_that_ends_brings_the_job_to_a_live_worker(queue: JobQueue, workers: Workers) -> None:
    short = {"lease_seconds": 1.0, "beat_seconds": 0.2}
    dead = workers.start("dead", tick_seconds=0.1, slots=1, **short)
    job_id = await submit(queue, spec(frames=80))
    await some_frames(queue, job_id)
    workers.start("live", tick_seconds=0.0, **short)
    await until(queue.workers, lambda states: any(state.name == "live" for state in states))
    await asyncio.sleep(1.6)  # so long it must have been in contact to judge
    dead.kill()
    killed_at = time.time()
    job = await ended(queue, job_id)
    await check_whole(queue, workers.data_dir, job_id)
    (_, again) = [event for event in await queue.events(job_id) if event.type is EventType.STARTED]
    assert job.attempt == 2
    assert again.at - killed_at < 3 * 1.0
    # The dead one's state goes when it expires, two leases after its last beat.
    await until(queue.workers, lambda states: [state.name for state in states] == ["live"])


async def test_a_stopping_worker_finishes_what_it_can(queue: JobQueue, workers: Workers) -> None:
    worker = workers.start("w", slots=2, drain_seconds=20.0)
    ids = [await submit(queue, spec(frames=12, seed=seed)) for seed in (1, 2, 3)]
    await some_frames(queue, ids[1])
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
    statuses = [(await queue.get(job_id)).status for job_id in ids]
    assert statuses == [JobStatus.COMPLETED, JobStatus.COMPLETED, JobStatus.QUEUED]
    assert await queue.workers() == []


async def test_a_drain_gives_back_at_no_cost(queue: JobQueue, workers: Workers) -> None:
    worker = workers.start("w", tick_seconds=0.1, drain_seconds=0.2)
    ids = [await submit(queue, spec(frames=40, seed=seed)) for seed in (1, 2, 3)]
    await some_frames(queue, ids[1])
    asked = time.monotonic()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
    assert time.monotonic() - asked < 5
    jobs = [await queue.get(job_id) for job_id in ids]
    assert [(job.status, job.stalled_attempts, job.suspect) for job in jobs] == [(JobStatus.QUEUED, 0, False)] * 3
    assert [await queue.position(job_id) for job_id in ids] == [1, 2, 3]
    workers.start("next", tick_seconds=0.0)
    for job_id in ids:
        await ended(queue, job_id)
        await check_whole(queue, workers.data_dir, job_id)
        units = workers.units(job_id)
        assert len(units) == len(set(units)), "nothing is computed twice"


async def test_cancelling_a_running_job_keeps_its_frames(queue: JobQueue, workers: Workers) -> None:
    workers.start("w", tick_seconds=0.05)
    ids = [await submit(queue, spec(frames=200, seed=seed)) for seed in (1, 2)]
    await some_frames(queue, ids[1], refined=4)
    asked = time.time()
    await queue.cancel(ids[1])
    job = await ended(queue, ids[1])
    assert job.status is JobStatus.CANCELLED
    assert job.completed_at is not None
    assert job.completed_at - asked < 0.6, "at the next step, not at the next heartbeat"
    assert len(await queue.frames(ids[1])) == job.coarse_done + job.refined_done >= 8
    assert [event.type.terminal for event in await queue.events(ids[1])].count(True) == 1
    assert (await queue.get(ids[0])).status is JobStatus.IN_PROGRESS
    await queue.delete(ids[0])
    await until(queue.workers, lambda states: states[0].running == ())
    gone = workers.data_dir / "store" / "jobs" / ids[0]
    await until(lambda: asyncio.to_thread(gone.exists), lambda there: not there)


async def test_rqs_own_stop_command_cancels(queue: JobQueue, workers: Workers, redis_url: str) -> None:
    workers.start("w", tick_seconds=0.05)
    ids = [await submit(queue, spec(frames=200, seed=seed)) for seed in (1, 2)]
    await some_frames(queue, ids[1])
    raw = connect_bytes(redis_url)
    send_stop_job_command(raw, ids[1], serializer=JSONSerializer)
    assert (await ended(queue, ids[1])).status is JobStatus.CANCELLED
    raw.close()


async def test_a_deadline_ends_a_running_job(queue: JobQueue, workers: Workers) -> None:
    workers.start("w", tick_seconds=0.05, beat_seconds=0.2)
    await until(queue.workers, lambda states: any(state.phase == "ready" for state in states))
    job_id = await submit(queue, spec(frames=1000, deadline_seconds=3.0))
    job = await ended(queue, job_id)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "deadline_exceeded")
    assert job.coarse_done > 0
    assert len(await queue.frames(job_id)) == job.coarse_done + job.refined_done


async def test_a_failing_job_ends_alone(queue: JobQueue, workers: Workers) -> None:
    workers.start("w")
    bad = await submit(queue, spec(frames=12, metadata={"twin": "fail"}))
    good = await submit(queue, spec(frames=12, seed=2))
    job = await ended(queue, bad)
    assert job.error is not None
    assert (job.status, job.error.message, job.coarse_done) == (JobStatus.FAILED, "asked to fail", 4)
    await ended(queue, good)
    await check_whole(queue, workers.data_dir, good)


async def test_a_lost_device_ends_the_worker_and_frees_its_jobs(queue: JobQueue, workers: Workers) -> None:
    worker = workers.start("w", log_level="critical")
    job_id = await submit(queue, spec(metadata={"twin": "break"}))
    worker.join(20)
    assert worker.exitcode == 70
    job = await queue.get(job_id)
    assert (job.status, job.suspect) == (JobStatus.QUEUED, True)


async def test_what_was_persisted_but_not_published_is_not_computed_again(
    queue: JobQueue, workers: Workers, database: redis.Redis
) -> None:
    """As after a crash between a unit that was early and its turn: its record is there, its frames are not."""
    workers.start("first", drain_seconds=0.0)
    job_id = await submit(queue, spec(frames=16, steps=6))
    await some_frames(queue, job_id, refined=4)
    workers.terminate_all()
    job = await queue.get(job_id)
    assert job.status is JobStatus.QUEUED
    before = workers.units(job_id)
    forget_last_frames(database, job)
    workers.start("second")
    await until(lambda: queue.get(job_id), lambda now: now.status.terminal)
    stored = await queue.frames(job_id)
    assert len(stored) == 32
    units = workers.units(job_id)
    assert len(units) == len(set(units))
    assert units[: len(before)] == before


def forget_last_frames(database: redis.Redis, job: Job) -> None:
    """Take back the publication of the last refined unit, not its record."""
    first = job.refined_done - twins.GRID
    for index in range(first, job.refined_done):
        database.hdel(f"gridit:job:{job.id}:frames", f"refined:{index}")
    database.hset(f"gridit:job:{job.id}", "refined_done", first)


async def test_redis_killed_and_back_costs_nothing(own_server: Server, tmp_path: Path) -> None:
    workers = Workers(own_server.url, tmp_path)
    queue = JobQueue.connect(own_server.url)
    try:
        worker = workers.start("w", tick_seconds=0.05, log_level="critical")
        ids = [await submit(queue, spec(frames=24, seed=seed)) for seed in (1, 2)]
        await some_frames(queue, ids[1])
        own_server.kill()
        await asyncio.sleep(1.0)
        own_server.start()
        for job_id in ids:
            job = await ended(queue, job_id)
            assert job.attempt == 1
            await check_whole(queue, workers.data_dir, job_id)
            assert len(workers.units(job_id)) == len(set(workers.units(job_id)))
        assert worker.is_alive()
        again = await submit(queue, spec(seed=9))
        await ended(queue, again)
        await check_whole(queue, workers.data_dir, again)
    finally:
        workers.kill_all()
        await queue.close()


async def test_a_frozen_worker_is_replaced_and_writes_nothing_when_it_wakes(queue: JobQueue, workers: Workers) -> None:
    short = {"lease_seconds": 1.0, "beat_seconds": 0.2}
    frozen = workers.start("frozen", tick_seconds=0.1, **short)
    job_id = await submit(queue, spec(frames=80))
    await some_frames(queue, job_id)
    workers.start("live", tick_seconds=0.0, **short)
    await until(queue.workers, lambda states: len(states) == 2)
    assert frozen.pid is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    await until(lambda: queue.get(job_id), lambda job: job.attempt == 2)
    os.kill(frozen.pid, signal.SIGCONT)
    await ended(queue, job_id)
    await asyncio.sleep(0.5)
    await check_whole(queue, workers.data_dir, job_id)
    states = await until(queue.workers, lambda found: len(found) == 2 and not any(s.running for s in found))
    assert {state.name for state in states} == {"frozen", "live"}


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes with another OpenMP library there")
def test_the_threads_of_an_engine_on_a_cpu_wait_asleep(redis_url: str, tmp_path: Path) -> None:
    """As the OpenMP library itself tells it when torch loads it; the bundle is not there, so the worker ends then."""
    absent = {"GRIDIT_BUNDLES": str(tmp_path / "absent"), "OMP_DISPLAY_ENV": "verbose"}
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | absent
    command = [sys.executable, "-m", "service.cli", "worker", "--redis-url", redis_url, "--data-dir", str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "GOMP_SPINCOUNT = '0'" in ended.stderr
