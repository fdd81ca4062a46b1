"""The queue's client half against a real server: submit, look, cancel, delete, list."""

from __future__ import annotations

import asyncio

import pytest
import redis

from tests.integration.conftest import Server
from tests.integration.following import SERVED
from tests.twins import spec
from workers.contracts.errors import IdempotencyMismatch, InvalidRequest, NotFound, QueueFull, Unavailable
from workers.contracts.event import EventType
from workers.contracts.job import Job, JobStatus, Priority
from workers.queue.client import JobQueue, Order, Submitted
from workers.queue.ledger import Ledger

pytestmark = pytest.mark.anyio


async def submit(queue: JobQueue, *, priority: Priority = Priority.NORMAL, bound: int = 100) -> Job:
    job = spec(priority=priority)
    return (await queue.submit(job, body_digest="digest", max_queued=bound)).job


def ledger(database: redis.Redis, name: str = "w", *, lease: float = 4.0) -> Ledger:
    return Ledger(database, name, lease_seconds=lease, keep_seconds=100)


async def types(queue: JobQueue, job_id: str) -> list[EventType]:
    return [event.type for event in await queue.events(job_id)]


async def test_a_submitted_job_is_there_as_it_was_asked(queue: JobQueue) -> None:
    asked = spec(frames=12, seed=7, metadata={"a": "b"})
    submitted = await queue.submit(asked, body_digest="d", max_queued=1, warnings=["w"], traceparent="00-1-2-01")
    job = await queue.get(submitted.job.id)
    assert (submitted.created, submitted.position) == (True, 1)
    assert (job.spec, job.status, job.warnings, job.traceparent) == (asked, JobStatus.QUEUED, ("w",), "00-1-2-01")
    (event,) = await queue.events(job.id)
    assert (event.seq, event.type, event.data) == (1, EventType.QUEUED, {"position": 1})
    assert event.at == pytest.approx(job.created_at)
    assert await queue.queue_depths() == {"high": 0, "normal": 1, "low": 0}


async def test_one_key_is_one_job_however_often_and_at_once(queue: JobQueue) -> None:
    async def once() -> Submitted:
        return await queue.submit(spec(), idempotency_key="k", body_digest="d", max_queued=100)

    answers = await asyncio.gather(*(once() for _ in range(20)))
    assert len({answer.job.id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert sum((await queue.queue_depths()).values()) == 1
    with pytest.raises(IdempotencyMismatch):
        await queue.submit(spec(), idempotency_key="k", body_digest="other", max_queued=100)
    other = await queue.submit(spec(), tenant="other", idempotency_key="k", body_digest="d", max_queued=100)
    assert other.created


async def test_a_clients_own_id_is_one_job(queue: JobQueue) -> None:
    first = await queue.submit(spec(), job_id="mine", body_digest="d", max_queued=100)
    again = await queue.submit(spec(), job_id="mine", body_digest="d", max_queued=100)
    assert (first.job.id, first.created, again.created) == ("mine", True, False)
    with pytest.raises(IdempotencyMismatch, match="id"):
        await queue.submit(spec(), job_id="mine", body_digest="e", max_queued=100)


async def test_the_bound_refuses_and_leaves_nothing(queue: JobQueue, database: redis.Redis) -> None:
    for _ in range(3):
        await submit(queue, bound=3)
    before = sorted(database.keys())
    with pytest.raises(QueueFull) as refused:
        await submit(queue, bound=3)
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 120
    assert sorted(database.keys()) == before


async def test_positions_follow_priority(queue: JobQueue) -> None:
    low = await submit(queue, priority=Priority.LOW)
    normal = await submit(queue)
    high = await submit(queue, priority=Priority.HIGH)
    places = [await queue.position(job.id) for job in (high, normal, low)]
    assert places == [1, 2, 3]
    assert await queue.position("unknown") is None


async def test_cancelling_a_waiting_job_ends_it_at_once(queue: JobQueue, database: redis.Redis) -> None:
    job = await submit(queue)
    cancelled = await queue.cancel(job.id)
    assert (cancelled.status, cancelled.completed_at is not None) == (JobStatus.CANCELLED, True)
    assert await queue.cancel(job.id) == cancelled
    assert await types(queue, job.id) == [EventType.QUEUED, EventType.CANCELLED]
    assert ledger(database).claim(SERVED) is None
    with pytest.raises(NotFound):
        await queue.cancel("unknown")


async def test_lists_page_through_all_in_order(queue: JobQueue) -> None:
    jobs = [await submit(queue) for _ in range(7)]
    await queue.cancel(jobs[2].id)
    ids = [job.id for job in jobs]

    async def walk(order: Order, status: JobStatus | None = None) -> list[str]:
        seen: list[str] = []
        more, after = True, None
        while more:
            page = await queue.list_jobs(after=after, limit=2, order=order, status=status)
            seen += [job.id for job in page.items]
            more, after = page.has_more, seen[-1]
        return seen

    assert await walk(Order.ASC) == ids
    assert await walk(Order.DESC) == ids[::-1]
    assert await walk(Order.ASC, JobStatus.QUEUED) == ids[:2] + ids[3:]
    with pytest.raises(InvalidRequest, match="after"):
        await queue.list_jobs(after="unknown")


async def test_deleting_forgets_all_but_the_end_of_the_story(queue: JobQueue, database: redis.Redis) -> None:
    job = await submit(queue)
    assert await queue.delete(job.id)
    assert not await queue.delete(job.id)
    with pytest.raises(NotFound):
        await queue.get(job.id)
    assert await types(queue, job.id) == [EventType.QUEUED, EventType.CANCELLED]
    left = [key for key in sorted(database.keys()) if job.id in key]
    assert left == [f"gridit:job:{job.id}:events"]
    assert 0 < database.ttl(left[0]) <= 60
    again = await queue.submit(spec(), job_id=job.id, body_digest="another", max_queued=10)
    assert again.created


async def test_without_redis_calls_say_so_and_later_work_again(own_server: Server) -> None:
    queue = JobQueue.connect(own_server.url)
    job = await submit(queue)
    own_server.kill()
    with pytest.raises(Unavailable):
        await queue.ping()
    with pytest.raises(Unavailable):
        await submit(queue)
    own_server.start()
    await queue.ping()
    assert (await queue.get(job.id)).id == job.id
    assert await queue.position(job.id) == 1
    await queue.close()


async def test_a_submit_costs_little(queue: JobQueue) -> None:
    began = asyncio.get_running_loop().time()
    count = 50
    for _ in range(count):
        await queue.submit(spec(), body_digest="d", max_queued=1000)
    assert (asyncio.get_running_loop().time() - began) / count < 0.05
