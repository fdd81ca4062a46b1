"""Noting workers that nobody watches: processes by name on a Redis and a directory, no API, no supervisor."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
from collections.abc import Iterable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import redis

from models.bundle import Bundle
from tests.faults import noting
from tests.faults.books import Books
from tests.faults.noting import Notes, Within
from tests.faults.oracle import Digests
from tests.integration.conftest import Server
from tests.integration.up_fixtures import wait_for
from workers.contracts.job import Job, JobSpec, JobStatus
from workers.queue.client import JobQueue
from workers.queue.release import release

HEAVY = ("tests.faults.noting", "workers.worker", "workers.runner", "models.media.mp4", "torch._dynamo", "torch._refs")
"""What a worker imports, the last two when it builds a net."""
LAST_ATTEMPT = 3
"""A job that is lost so often without progress fails."""
PATIENCE = 60.0
"""Seconds; far more than anything here takes on a machine that does nothing else."""


class Crew:
    """Worker processes of one test, and what they leave in its Redis and its store."""

    def __init__(self, server: Server, directory: Path, *, bundle: Path | None = None) -> None:
        """`bundle`: the real runner's; without one the twin runs."""
        self._redis = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
        self.books = Books(self._redis)
        self.notes = Notes(directory / "notes")
        self._url = server.url
        self._data_dir = directory / "data"
        self._bundle = bundle
        self._processes: dict[str, ForkServerProcess] = {}
        self._context = multiprocessing.get_context("forkserver")
        # Heavy imports once: a process of ours is quick to start and still no copy of this one.
        self._context.set_forkserver_preload(list(HEAVY))

    def start(self, name: str, *, tick_seconds: float = 0.01, **settings: object) -> ForkServerProcess:
        """A worker; `settings` are fields of Settings."""
        more: dict[str, object] = {"log_level": "critical", "redis_url": self._url, "data_dir": self._data_dir}
        if self._bundle is not None:
            more |= {"bundles": (self._bundle,), "threads": 1}
        within = Within.TWIN if self._bundle is None else Within.RUNNER
        wishes = {"within": within, "notes": self.notes.directory, "tick_seconds": tick_seconds}
        process = self._context.Process(target=noting.work, args=(name,), kwargs=wishes | more | settings)
        process.start()
        self._processes[name] = process
        return process

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it is dead."""
        process = self._processes.pop(name)
        process.kill()
        process.join()

    def terminate(self, name: str) -> ForkServerProcess:
        """SIGTERM."""
        self._processes[name].terminate()
        return self._processes[name]

    def release(self, name: str) -> None:
        """What a supervisor does when its worker is dead."""
        release(self._redis, name)

    def close(self) -> None:
        """Kill all that still runs."""
        for name in list(self._processes):
            self.kill(name)
        self._redis.close()

    def submit(self, *specs: JobSpec) -> list[str]:
        """Queue jobs; their ids."""

        async def submitted() -> list[str]:
            queue = JobQueue.connect(self._url)
            jobs = [await queue.submit(spec, body_digest="", max_queued=1000) for spec in specs]
            await queue.close()
            return [job.job.id for job in jobs]

        return asyncio.run(submitted())

    def ready(self, name: str) -> bool:
        """Whether that worker has its engines loaded."""
        state = self.books.worker(name)
        return state is not None and state.phase == "ready"

    def await_in_hand(self, job_ids: Iterable[str]) -> list[Job]:
        """Until what is unfinished is claimed, and one more loss would not be the last that a job may have."""
        assert wait_for(lambda: all(map(_may_be_lost, self.books.unfinished(job_ids))), seconds=PATIENCE)
        return self.books.unfinished(job_ids)

    def await_end(self, job_ids: Iterable[str]) -> list[Job]:
        """The jobs as they ended."""
        assert wait_for(lambda: not self.books.unfinished(job_ids), seconds=PATIENCE), self.books.unfinished(job_ids)
        return [self.books.job(job_id) for job_id in job_ids]

    def delivered(self, job_id: str) -> Digests:
        """Every published frame and the video, as they lie in the store."""
        stored = self.books.frames(job_id) | {"video": self.books.job(job_id).artifacts["video"]}
        root = self._data_dir / "store"
        return {name: hashlib.sha256((root / value.path).read_bytes()).hexdigest() for name, value in stored.items()}


def _may_be_lost(job: Job) -> bool:
    return job.status.terminal or (job.status is JobStatus.IN_PROGRESS and job.stalled_attempts < LAST_ATTEMPT)


def tiny_spec(bundle: Bundle, *, seed: int, frames: int = 48, steps: int = 4) -> JobSpec:
    """A job for the tiny bundle."""
    return JobSpec(
        model=bundle.spec.name,
        bundle_hash=bundle.hash,
        class_label="sky",
        num_frames=frames,
        fps=8,
        size="8x8",
        seed=seed,
        num_inference_steps=steps,
        refine_steps=3,
        sampler="euler",
        guidance_scale=1.5,
    )
