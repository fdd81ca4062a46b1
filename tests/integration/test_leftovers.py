"""A storm of requests on real processes that are killed now and then: nothing is left in the end but what is known."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from multiprocessing.process import BaseProcess

import pytest
import redis

from tests.integration.conftest import Workers
from tests.integration.following import submit, until
from tests.integration.leftovers import check_nothing_left
from tests.twins import spec
from workers import results
from workers.contracts import keys
from workers.contracts.errors import NotFound
from workers.contracts.job import Job, JobStatus
from workers.queue.accounts import Accounts
from workers.queue.client import JobQueue
from workers.storage import DirectoryStore
from workers.tidying import GRACE, Tidier

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

JOBS = 300
AT_ONCE = 8
KILL_EVERY = 1.0
"""Seconds, about."""
SHORT = {"lease_seconds": 1.2, "beat_seconds": 0.3, "log_level": "critical"}


class Client:
    """Submits a job, follows it to a moment of the dice's choice, and does to it what the dice say."""

    def __init__(self, queue: JobQueue, store: DirectoryStore, database: redis.Redis) -> None:
        self._queue, self._store, self._database = queue, store, database
        self.ever: set[str] = set()

    async def run(self, seed: int) -> None:
        dice = random.Random(seed)
        job_id = await submit(self._queue, spec(frames=dice.choice([3, 8]), seed=seed))
        self.ever.add(job_id)
        moment = dice.choice([0, 1, 2, 4, 8, 12, 16])
        await until(lambda: self._queue.get(job_id), lambda job: _made(job) >= moment or job.status.terminal)
        await asyncio.sleep(dice.uniform(0.0, 0.05))
        acts = [[self._cancel], [self._delete], [self._cancel, self._delete], [self._delete, self._delete], []]
        await asyncio.gather(*(act(job_id) for act in dice.choice(acts)))
        await until(partial(self._status, job_id), lambda status: status is None or status.terminal)
        if dice.random() < 0.3:
            self._database.zadd(keys.EXPIRY, {job_id: 1.0}, xx=True)

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._queue.cancel(job_id)
        except NotFound:
            return

    async def _delete(self, job_id: str) -> None:
        """As the service does."""
        await self._queue.delete(job_id)
        await asyncio.to_thread(self._store.delete_tree, results.tree(job_id))

    async def _status(self, job_id: str) -> JobStatus | None:
        try:
            return (await self._queue.get(job_id)).status
        except NotFound:
            return None


async def test_nothing_is_left_of_a_storm(queue: JobQueue, workers: Workers, database: redis.Redis) -> None:
    store = DirectoryStore(workers.data_dir / "store")
    client = Client(queue, store, database)
    killing = asyncio.create_task(kill_now_and_then(workers, random.Random(3)))
    places = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int) -> None:
        async with places:
            await client.run(seed)

    await asyncio.gather(*(one(seed) for seed in range(JOBS)))
    killing.cancel()
    await until(lambda: asyncio.to_thread(database.zcard, keys.LITTER), lambda count: count == 0)
    await until(lambda: asyncio.to_thread(due, database), lambda count: count == 0)
    workers.terminate_all()
    orphans = list(Tidier(store, Accounts(database)).orphans(time.time() + GRACE))
    known = len(client.ever & set(store.folders("jobs")))
    print(f"\n{JOBS} jobs, {known} of them kept; {len(orphans)} folders were left by killed workers")
    check_nothing_left(database, store, client.ever)


async def kill_now_and_then(workers: Workers, dice: random.Random) -> None:
    """Two workers, of which one is killed now and then and another one started."""
    alive: list[BaseProcess] = [workers.start(f"w{index}", tick_seconds=0.005, **SHORT) for index in range(2)]
    for index in range(2, 1000):
        await asyncio.sleep(dice.uniform(0.5, 1.5) * KILL_EVERY)
        alive.pop(dice.randrange(2)).kill()
        alive.append(workers.start(f"w{index}", tick_seconds=0.005, **SHORT))


def due(database: redis.Redis) -> int:
    """Jobs whose time is up."""
    return int(database.zcount(keys.EXPIRY, "-inf", time.time()))


def _made(job: Job) -> int:
    return job.coarse_done + job.refined_done
