"""Workers and the server killed at random while jobs of all priorities run: every job ends whole, once."""

from __future__ import annotations

import asyncio
import itertools
import random
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import redis

from tests.integration.conftest import Server, Workers
from tests.integration.following import check_whole, ended, submit
from tests.twins import spec
from workers.contracts.job import Priority
from workers.queue.client import JobQueue
from workers.queue.release import release

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(600)]

SECONDS = 40.0
AT_ONCE = 8
SHORT = {"lease_seconds": 1.5, "beat_seconds": 0.3, "log_level": "critical"}


class Chaos:
    """Keeps two workers running and kills one, or the server, now and then; releases like a supervisor, or not."""

    def __init__(self, server: Server, workers: Workers, dice: random.Random) -> None:
        self._server = server
        self._workers = workers
        self._dice = dice
        self._names = (f"w{index}" for index in itertools.count())
        self._alive = [self._start(), self._start()]
        self.kills = 0

    def strike(self) -> None:
        if self._dice.random() < 0.1:
            self._server.kill()
            self._server.start()
            return
        self.kills += 1
        name, process = self._alive.pop(self._dice.randrange(len(self._alive)))
        process.kill()
        process.join()
        if self._dice.random() < 0.7:
            with redis.Redis.from_url(self._server.url) as client:
                release(client, name)
        self._alive.append(self._start())

    def _start(self) -> tuple[str, BaseProcess]:
        name = next(self._names)
        return name, self._workers.start(name, tick_seconds=0.01, **SHORT)


async def test_every_job_ends_whole_whatever_is_killed(tmp_path: Path) -> None:
    server = Server(tmp_path / "redis")
    server.start()
    workers = Workers(server.url, tmp_path)
    queue = JobQueue.connect(server.url)
    dice = random.Random(20)
    try:
        jobs = await storm(queue, Chaos(server, workers, dice), dice)
        for job_id in jobs:
            job = await ended(queue, job_id)
            if job.error is not None and job.error.code == "worker_lost":
                continue  # thrice killed within one unit: an end as well, told once
            await check_whole(queue, workers.data_dir, job_id)
        assert len(jobs) > 10
    finally:
        workers.kill_all()
        await queue.close()
        server.kill()


async def storm(queue: JobQueue, chaos: Chaos, dice: random.Random) -> list[str]:
    """Submit and strike until time is up."""
    jobs: list[str] = []
    until_time = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < until_time:
        waiting = sum((await queue.queue_depths()).values())
        for _ in range(AT_ONCE - waiting):
            wish = spec(frames=dice.randrange(1, 24), seed=dice.randrange(1000), priority=dice.choice(list(Priority)))
            jobs.append(await submit(queue, wish))
        await asyncio.sleep(dice.uniform(0.3, 2.0))
        await asyncio.to_thread(chaos.strike)
    return jobs
