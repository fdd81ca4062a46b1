"""A disk that fills up while jobs run: none is harmed, all go on when there is room, and leave when they are told."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Server, Workers
from tests.integration.following import check_whole, ended, submit, until
from tests.integration.service_fixtures import png, running_service
from tests.integration.test_api import assert_problem
from tests.integration.test_references import data_url
from tests.integration.test_storage_full import assert_full
from tests.twins import spec
from workers.contracts.errors import GriditError
from workers.contracts.job import JobStatus
from workers.queue.client import JobQueue
from workers.storage.store import ASIDE

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

DISK = 4 * 1024 * 1024
PAGE = 4096


@dataclass(frozen=True)
class Disk:
    """A file system of its own with little room, and a file that takes it."""

    root: Path

    @property
    def _ballast(self) -> Path:
        return self.root / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Take all room but so many pages."""
        try:
            with self._ballast.open("ab", buffering=0) as file:
                while file.write(b"\0" * PAGE) == PAGE:
                    pass
        except OSError:
            pass
        with self._ballast.open("r+b") as file:
            file.truncate(max(0, self._ballast.stat().st_size // PAGE * PAGE - leave * PAGE))

    def free(self) -> None:
        self._ballast.unlink()

    def asides(self) -> list[Path]:
        return list(self.root.rglob(f"{ASIDE}*"))


@pytest.fixture
def disk(workers: Workers) -> Iterator[Disk]:
    """The workers' data directory on a small tmpfs."""
    workers.data_dir.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(workers.data_dir)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield Disk(workers.data_dir)
    workers.kill_all()
    subprocess.run(["umount", "--lazy", str(workers.data_dir)], check=True)


async def stuck_job(queue: JobQueue, disk: Disk, *, seed: int) -> str:
    """A job whose next frame finds no room."""
    job_id = await submit(queue, spec(frames=40, seed=seed))
    await until(lambda: queue.get(job_id), lambda job: job.refined_done >= 4)
    disk.fill()
    before = -1
    while before != (now := (await queue.get(job_id)).seq):
        before = now
        await asyncio.sleep(1.0)
    assert (await queue.get(job_id)).status is JobStatus.IN_PROGRESS
    return job_id


async def test_a_job_goes_on_when_there_is_room(queue: JobQueue, workers: Workers, disk: Disk) -> None:
    workers.start("w", tick_seconds=0.01)
    job_id = await stuck_job(queue, disk, seed=1)
    waiting = await submit(queue, spec(frames=4))
    await until(queue.workers, lambda states: time.time() - states[0].heartbeat_at < 2)
    await asyncio.sleep(6.0)  # longer than a lease
    states = await queue.workers()
    assert time.time() - states[0].heartbeat_at < 4, "it beats on"
    assert (await queue.get(waiting)).status is JobStatus.QUEUED, "no more jobs are taken in hand"
    assert not disk.asides()
    began = time.monotonic()
    disk.free()
    for each in (job_id, waiting):
        job = await ended(queue, each)
        assert job.attempt == 1
        await check_whole(queue, workers.data_dir, each)
    print(f"\nboth jobs were done {time.monotonic() - began:.2f} s after there was room")
    assert len(workers.units(job_id)) == len(set(workers.units(job_id))), "nothing was computed twice"


async def test_jobs_leave_a_full_disk_when_they_are_told_to(queue: JobQueue, workers: Workers, disk: Disk) -> None:
    process = workers.start("w", tick_seconds=0.01, drain_seconds=0.5)
    late = await submit(queue, spec(frames=400, seed=2, deadline_seconds=12.0))
    drained = await submit(queue, spec(frames=400, seed=3))
    cancelled = await stuck_job(queue, disk, seed=4)
    began = time.monotonic()
    await queue.cancel(cancelled)
    assert (await ended(queue, cancelled)).status is JobStatus.CANCELLED
    print(f"\ncancelled on a full disk within {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 5
    job = await ended(queue, late)
    assert job.error is not None
    assert job.error.code == "deadline_exceeded"
    began = time.monotonic()
    process.terminate()
    process.join(30)
    print(f"drained on a full disk within {time.monotonic() - began:.2f} s")
    assert process.exitcode == 0
    job = await queue.get(drained)
    assert (job.status, job.stalled_attempts) == (JobStatus.QUEUED, 0)
    assert not disk.asides()


async def test_who_waits_too_long_fails_and_the_next_one_is_served(
    queue: JobQueue, workers: Workers, disk: Disk
) -> None:
    workers.start("w", tick_seconds=0.01, store_patience_seconds=2)
    job_id = await submit(queue, spec(frames=400))
    await until(lambda: queue.get(job_id), lambda job: job.refined_done >= 4)
    disk.fill()
    job = await ended(queue, job_id)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "storage_full")
    assert "more room" in job.error.message
    assert not disk.asides()
    disk.free()
    after = await submit(queue, spec(frames=4))
    await ended(queue, after)
    await check_whole(queue, workers.data_dir, after)


def test_the_service_refuses_new_jobs_and_deletes_old_ones(redis_url: str, disk: Disk) -> None:
    reference = {"prompt": "sky", "num_frames": 4, "input_reference": data_url(png(16, 3))}
    with running_service(redis_url, disk.root, store_free_bytes=64 * PAGE) as api:
        api.reset()
        made = api.create()["id"]
        hand = api.hand()
        hand.complete(hand.claim(), video=b"0" * 128 * PAGE)
        disk.fill(leave=63)
        assert_full(api.http.post("/v1/videos", json={"prompt": "sky"}))
        assert len(api.http.get(f"/v1/videos/{made}/content").content) == 128 * PAGE
        assert api.http.delete(f"/v1/videos/{made}").status_code == 200
        assert api.create()["status"] == "queued"
    with running_service(redis_url, disk.root, store_free_bytes=0) as api:  # as when it fills up just then
        disk.fill()
        before = api.traces
        refused = assert_problem(api.http.post("/v1/videos", json=reference), 503, "storage_full")
        assert str(disk.root) not in refused["detail"]
        assert api.traces == before
        assert not list((disk.root / "store").rglob("*.npy"))
        assert not disk.asides()


async def test_the_queues_own_disk_may_fill_up_as_well(workers: Workers, disk: Disk) -> None:
    """As under `gridit up`, where the server's file lies beside the store."""
    server = Server(disk.root / "redis")
    server.start()
    queue = JobQueue.connect(server.url)
    workers.redis_url = server.url
    try:
        process = workers.start("w", tick_seconds=0.01)
        job_id = await submit(queue, spec(frames=40))
        await until(lambda: queue.get(job_id), lambda job: job.refined_done >= 4)
        disk.fill()
        await asyncio.sleep(8.0)
        assert process.is_alive()
        print("\nwhile all was full:", await refused(queue))
        disk.free()
        job = await ended(queue, job_id)
        assert job.attempt == 1
        await check_whole(queue, workers.data_dir, job_id)
        server.kill()
        server.start()
        await check_whole(queue, workers.data_dir, job_id)
    finally:
        workers.kill_all()
        await queue.close()
        server.kill()


async def refused(queue: JobQueue) -> str:
    """What a client is told."""
    try:
        await submit(queue, spec(frames=4))
    except GriditError as error:
        return f"{error.code}: {error.message}"
    return "taken"
