"""What jobs hold in the store: counted exactly by the scripts, and bounded by age and by size."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest
import redis

from tests.integration.conftest import Workers
from tests.integration.following import SERVED, ended, submit, until
from tests.twins import spec
from workers.contracts import keys
from workers.contracts.job import Job, JobStatus, Stage, StoredObject, UnitRecord
from workers.queue.accounts import Accounts
from workers.queue.client import JobQueue, Order
from workers.queue.ledger import Frame, Judge, Ledger
from workers.storage import DirectoryStore

pytestmark = pytest.mark.anyio
FRAMES = 4


@pytest.fixture
def ledger(database: redis.Redis) -> Ledger:
    return Ledger(database, "w", lease_seconds=60, keep_seconds=600)


def stored(dice: random.Random, path: str) -> StoredObject:
    return StoredObject(path=path, sha256="0" * 64, bytes=dice.randrange(1, 10_000), media_type="x/y")


def unit(dice: random.Random, stage: Stage) -> UnitRecord:
    """All frames of a stage; for the coarse one its raw result as well."""
    frames = tuple(stored(dice, f"{stage}/{index}") for index in range(FRAMES))
    return UnitRecord(stage=stage, start=0, frames=frames, result=stored(dice, "r") if stage is Stage.COARSE else None)


def expected_bytes(database: redis.Redis, job_id: str) -> int:
    """From the records themselves: all that an unfinished job has stored, of an ended one what it names."""
    record = cast("dict[str, str]", database.hgetall(keys.job(job_id)))
    job = Job.from_hash(record)
    units = [UnitRecord.model_validate_json(value) for value in cast("list[str]", database.hvals(keys.units(job_id)))]
    named = [StoredObject.model_validate_json(v) for v in cast("list[str]", database.hvals(keys.frames(job_id)))]
    made = [each for one in units for each in (*one.frames, one.result) if each is not None]
    kept = [*named, *job.artifacts.values()] if job.status.terminal else made
    return sum(each.bytes for each in (*kept, job.spec.input_reference) if each is not None)


def check_accounts(database: redis.Redis) -> None:
    """The law."""
    jobs = cast("list[str]", database.zrange(keys.JOBS, 0, -1))
    held = {job_id: int(cast("str", database.hget(keys.job(job_id), "stored_bytes"))) for job_id in jobs}
    assert held == {job_id: expected_bytes(database, job_id) for job_id in jobs}
    assert Accounts(database).stored_bytes() == sum(held.values())


class Day:
    """A few jobs at a time, in random states; each act is one of the queue's scripts."""

    def __init__(self, queue: JobQueue, ledger: Ledger, dice: random.Random) -> None:
        self._queue, self._ledger, self._dice = queue, ledger, dice
        self._running: list[Job] = []
        self.known: list[str] = []

    async def act(self) -> None:
        acts = [self._submit, self._claim, self._keep_unit, self._publish, self._finish, self._give_back, self._cancel]
        await self._dice.choice([*acts, self._keep_unit, self._publish, self._delete])()

    async def _submit(self) -> None:
        reference = self._dice.choice([None, stored(self._dice, "reference")])
        wish = spec(frames=FRAMES, input_reference=reference)
        self.known.append((await self._queue.submit(wish, body_digest="d", max_queued=99)).job.id)

    async def _claim(self) -> None:
        if (claim := self._ledger.claim(SERVED)) is not None:
            self._running.append(claim.job)

    async def _keep_unit(self) -> None:
        if self._running:
            stage = self._dice.choice(list(Stage))
            self._ledger.publish(self._dice.choice(self._running), frames=[], unit=(stage, unit(self._dice, stage)))

    async def _publish(self) -> None:
        """The next coarse frame, and the unit it is of, which may have been kept before with another size."""
        if self._running:
            job = self._dice.choice(self._running)
            kept, done = unit(self._dice, Stage.COARSE), int((await self._get(job.id)).coarse_done)
            frames = [Frame(Stage.COARSE, i, kept.frames[i]) for i in range(done, min(done + 2, FRAMES))]
            self._ledger.publish(job, frames=frames, unit=(Stage.COARSE, kept))

    async def _finish(self) -> None:
        if self._running:
            job = self._running.pop(self._dice.randrange(len(self._running)))
            artifacts = self._dice.choice([{}, {"video": stored(self._dice, "v"), "gif": stored(self._dice, "g")}])
            for _ in range(2):  # the second time is none
                self._ledger.finish(job, status=JobStatus.COMPLETED, artifacts=artifacts)

    async def _give_back(self) -> None:
        if self._running:
            job = self._running.pop(self._dice.randrange(len(self._running)))
            self._ledger.give_back(job.id, job.attempt)

    async def _cancel(self) -> None:
        if self.known:
            await self._queue.cancel(self._dice.choice(self.known))

    async def _delete(self) -> None:
        if self.known:
            gone = self.known.pop(self._dice.randrange(len(self.known)))
            self._running = [job for job in self._running if job.id != gone]
            await self._queue.delete(gone)

    async def _get(self, job_id: str) -> Job:
        return await self._queue.get(job_id)


async def test_every_script_keeps_the_accounts(queue: JobQueue, ledger: Ledger, database: redis.Redis) -> None:
    day = Day(queue, ledger, random.Random(7))
    for _ in range(300):
        await day.act()
        check_accounts(database)
    assert len(day.known) > 5
    for job_id in day.known:
        await queue.delete(job_id)
    assert database.get(keys.STORED) is None


async def test_above_the_bound_the_first_to_end_go_and_no_more_than_needed(
    queue: JobQueue, ledger: Ledger, database: redis.Redis
) -> None:
    ids = [await held_job(queue, ledger, 1000) for _ in range(5)]
    running = await held_job(queue, ledger, 10_000, ends=False)
    waiting = (await queue.submit(spec(), body_digest="d", max_queued=9)).job.id
    assert sweep(ledger, None) == sweep(ledger, 15_000) == ()
    assert sweep(ledger, 14_999) == (ids[0],)
    assert sweep(ledger, 12_001) == tuple(ids[:3])
    assert sweep(ledger, 12_000) == tuple(ids[:3])
    assert sweep(ledger, 1) == tuple(ids), "never one in flight"
    for job_id in ids:
        ledger.purge(job_id)
    assert sweep(ledger, 1) == ()
    assert {job.id for job in (await queue.list_jobs()).items} == {running, waiting}
    check_accounts(database)


async def test_age_and_size_are_one_order(queue: JobQueue, ledger: Ledger, database: redis.Redis) -> None:
    ids = [await held_job(queue, ledger, 1000) for _ in range(3)]
    database.zadd(keys.EXPIRY, {ids[0]: 1.0})
    assert sweep(ledger, None) == (ids[0],)
    assert sweep(ledger, 2000) == (ids[0],), "what is due anyhow makes room"
    assert sweep(ledger, 1999) == (ids[0], ids[1])


async def test_a_worker_keeps_within_the_bound(queue: JobQueue, workers: Workers, database: redis.Redis) -> None:
    accounts, store = Accounts(database), DirectoryStore(workers.data_dir / "store")
    workers.start("w", tick_seconds=0.0, lease_seconds=0.8, beat_seconds=0.2)
    first = await submit(queue, spec(frames=8))
    await ended(queue, first)
    each = accounts.stored_bytes()
    workers.terminate_all()
    workers.start(
        "next", tick_seconds=0.0, lease_seconds=0.8, beat_seconds=0.2, store_bytes=3 * each + each // 2, slots=1
    )
    rest = [await submit(queue, spec(frames=8)) for _ in range(5)]
    await ended(queue, rest[-1])
    page = await until(lambda: queue.list_jobs(order=Order.ASC), lambda page: len(page.items) <= 3)
    assert [job.id for job in page.items] == rest[-3:]
    assert accounts.stored_bytes() == 3 * each
    await until(lambda: asyncio.to_thread(list, store.files()), lambda found: sum(f.bytes for f in found) == 3 * each)
    assert store.folders("jobs") == sorted(rest[-3:])


def sweep(ledger: Ledger, bound: int | None) -> tuple[str, ...]:
    return ledger.sweep(judge_leases=Judge.NO, store_bytes=bound).expired


async def held_job(queue: JobQueue, ledger: Ledger, size: int, *, ends: bool = True) -> str:
    """A job that holds so many bytes."""
    await queue.submit(spec(frames=1), body_digest="d", max_queued=9)
    claim = ledger.claim(SERVED)
    assert claim is not None
    frame = StoredObject(path="f", sha256="0" * 64, bytes=size, media_type="x/y")
    record = UnitRecord(stage=Stage.COARSE, start=0, frames=(frame,))
    ledger.publish(claim.job, frames=[Frame(Stage.COARSE, 0, frame)], unit=("coarse/0", record))
    if ends:
        ledger.finish(claim.job, status=JobStatus.COMPLETED)
    return claim.job.id
