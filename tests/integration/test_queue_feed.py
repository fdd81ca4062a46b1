"""Followers see every event once and in order, whatever happens to the connection and however slow they are."""

from __future__ import annotations

import asyncio

import pytest
import redis

from tests.integration.following import SERVED
from tests.twins import spec
from workers.contracts import keys
from workers.contracts.errors import NotFound
from workers.contracts.job import JobStatus, Stage, StoredObject
from workers.queue.client import JobQueue
from workers.queue.feed import BUFFER, EventFeed, ReplayTruncated
from workers.queue.ledger import Claim, Frame, Ledger

pytestmark = pytest.mark.anyio

PICTURE = StoredObject(path="p", sha256="s", bytes=1, media_type="image/png", width=1, height=1)


class Maker:
    """Makes the events of one job by hand."""

    def __init__(self, database: redis.Redis, claim: Claim, books: Ledger) -> None:
        self.job = claim.job
        self._books = books
        self._made = 0

    @classmethod
    async def of(cls, queue: JobQueue, database: redis.Redis, *, frames: int) -> Maker:
        books = Ledger(database, "w", lease_seconds=4, keep_seconds=100)
        await queue.submit(spec(frames=frames), body_digest="d", max_queued=10)
        claim = books.claim(SERVED)
        assert claim is not None
        return cls(database, claim, books)

    def publish(self, count: int) -> None:
        frames = [Frame(Stage.COARSE, index, PICTURE) for index in range(self._made, self._made + count)]
        self._made += count
        self._books.publish(self.job, frames=frames)

    def end(self) -> None:
        self._books.finish(self.job, status=JobStatus.CANCELLED)


async def collect(feed: EventFeed, job_id: str, *, after: int = 0, pause: float = 0.0) -> list[int]:
    seen: list[int] = []
    async for event in feed.follow(job_id, after=after):
        seen.append(event.seq)
        await asyncio.sleep(pause)
    return seen


async def test_followers_from_any_place_see_all_that_comes(queue: JobQueue, database: redis.Redis) -> None:
    maker = await Maker.of(queue, database, frames=100)
    async with EventFeed(queue) as feed:
        tasks = [asyncio.create_task(collect(feed, maker.job.id, after=after)) for after in (0, 1, 2, 5)]
        for _ in range(20):
            maker.publish(2)
            await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(collect(feed, maker.job.id)))
        maker.end()
        results = await asyncio.wait_for(asyncio.gather(*tasks), 20)
        last = (await queue.get(maker.job.id)).seq
        assert [seen == list(range(after + 1, last + 1)) for seen, after in zip(results, (0, 1, 2, 5, 0), strict=True)]
        assert results[0] == list(range(1, last + 1))
        assert results[3] == list(range(6, last + 1))
        assert await collect(feed, maker.job.id) == results[0]
        assert await collect(feed, maker.job.id, after=last) == []
        assert feed.followers == 0


async def test_a_lost_connection_costs_no_event(queue: JobQueue, database: redis.Redis) -> None:
    maker = await Maker.of(queue, database, frames=100)
    async with EventFeed(queue) as feed:
        task = asyncio.create_task(collect(feed, maker.job.id))
        for _ in range(10):
            maker.publish(5)
            database.client_kill_filter(_type="pubsub")
            await asyncio.sleep(0.05)
        maker.end()
        seen = await asyncio.wait_for(task, 20)
    assert seen == list(range(1, (await queue.get(maker.job.id)).seq + 1))


async def test_a_slow_follower_is_not_buffered_without_bound(queue: JobQueue, database: redis.Redis) -> None:
    count = 2 * BUFFER
    maker = await Maker.of(queue, database, frames=count)
    async with EventFeed(queue) as feed:
        slow = asyncio.create_task(collect(feed, maker.job.id, pause=0.002))
        for _ in range(count // 8):
            maker.publish(8)
            await asyncio.sleep(0)
        maker.end()
        seen = await asyncio.wait_for(slow, 60)
    assert seen == list(range(1, (await queue.get(maker.job.id)).seq + 1))


async def test_what_is_kept_no_more_is_said(queue: JobQueue, database: redis.Redis) -> None:
    maker = await Maker.of(queue, database, frames=100)
    maker.publish(10)
    database.xtrim(keys.events(maker.job.id), maxlen=5, approximate=False)
    async with EventFeed(queue) as feed:
        with pytest.raises(ReplayTruncated) as caught:
            await collect(feed, maker.job.id, after=2)
        assert caught.value.skipped == 12 - 5 - 2
        with pytest.raises(NotFound):
            await collect(feed, "unknown")


async def test_deleting_a_job_ends_its_followers(queue: JobQueue, database: redis.Redis) -> None:
    maker = await Maker.of(queue, database, frames=10)
    async with EventFeed(queue) as feed:
        task = asyncio.create_task(collect(feed, maker.job.id))
        await asyncio.sleep(0.1)
        await queue.delete(maker.job.id)
        assert await asyncio.wait_for(task, 10) == [1, 2, 3]
