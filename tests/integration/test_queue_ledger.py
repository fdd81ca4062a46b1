"""The queue's worker half against a real server: claims, fencing, order of publication, exactly one end."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import redis
from redis.exceptions import ResponseError
from rq import Queue
from rq.job import Job as RqJob
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from tests.integration.following import SERVED
from tests.twins import MODEL, spec
from workers.contracts.catalogue import WorkerState
from workers.contracts.event import EventType
from workers.contracts.job import (
    MAX_ATTEMPTS,
    Job,
    JobError,
    JobStatus,
    Priority,
    Stage,
    StoredObject,
    UnitRecord,
)
from workers.mailbox import Mailbox
from workers.queue.client import JobQueue
from workers.queue.connect import connect_bytes
from workers.queue.ledger import Claim, Frame, Judge, Ledger, Published, Verdict
from workers.queue.release import Cause, release
from workers.queue.rqworker import GriditWorker

pytestmark = pytest.mark.anyio

PICTURE = StoredObject(path="p", sha256="s", bytes=1, media_type="image/png", width=1, height=1)
NUMERICS = SERVED[MODEL]


async def submit(queue: JobQueue, *, priority: Priority = Priority.NORMAL, deadline: float | None = None) -> str:
    asked = spec(frames=4, priority=priority, deadline_seconds=deadline)
    return (await queue.submit(asked, body_digest="d", max_queued=100)).job.id


def ledger(database: redis.Redis, name: str = "w", *, lease: float = 4.0) -> Ledger:
    return Ledger(database, name, lease_seconds=lease, keep_seconds=100)


def claimed(books: Ledger) -> Claim:
    claim = books.claim(SERVED)
    assert claim is not None
    return claim


def frames(stage: Stage, *indices: int) -> list[Frame]:
    return [Frame(stage, index, PICTURE) for index in indices]


def state() -> WorkerState:
    return WorkerState(name="w", phase="ready", pid=1, host="h", slots=2, started_at=0, heartbeat_at=0)


async def types(queue: JobQueue, job_id: str) -> list[EventType]:
    return [event.type for event in await queue.events(job_id)]


async def test_claims_follow_priority_and_drop_what_does_not_wait(queue: JobQueue, database: redis.Redis) -> None:
    low, normal = await submit(queue, priority=Priority.LOW), await submit(queue)
    high, dead = await submit(queue, priority=Priority.HIGH), await submit(queue)
    await queue.cancel(dead)
    database.lpush("rq:queue:gridit-high", dead, "never-was", high, high)
    books = ledger(database)
    assert [claimed(books).job.id for _ in range(3)] == [high, normal, low]
    assert books.claim(SERVED) is None
    books.sweep(judge_leases=Judge.NO)
    assert sum((await queue.queue_depths()).values()) == 0


async def test_a_claim_notes_attempt_time_and_numerics(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    first = claimed(ledger(database)).job
    assert (first.attempt, first.stalled_attempts, first.status) == (1, 1, JobStatus.IN_PROGRESS)
    assert first.numerics == NUMERICS
    assert first.started_at is not None
    release(database, "w")
    changed = NUMERICS.evolve(engine="other")
    again = ledger(database, "v").claim({MODEL: changed})
    assert again is not None
    assert (again.job.attempt, again.job.suspect) == (2, True)
    assert (again.job.numerics, again.job.started_at) == (NUMERICS, first.started_at)
    started = [event.data for event in await queue.events(job_id) if event.type is EventType.STARTED]
    assert started == [{"attempt": 1}, {"attempt": 2}]


async def test_a_stale_attempt_can_write_nothing(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    old = claimed(ledger(database, "old")).job
    release(database, "old")
    new = claimed(ledger(database, "new")).job
    before = await queue.events(job_id)
    stale = ledger(database, "old")
    assert stale.publish(old, frames=frames(Stage.COARSE, 0)) is Verdict.LOST
    assert stale.finish(old, status=JobStatus.COMPLETED) is Verdict.LOST
    assert stale.give_back(job_id, old.attempt) == "lost"
    assert stale.beat(state(), [(job_id, old.attempt)])[1] == [Verdict.LOST]
    assert await queue.events(job_id) == before
    assert isinstance(ledger(database, "new").publish(new, frames=frames(Stage.COARSE, 0)), Published)


async def test_frames_come_once_in_order_and_coarse_first(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    books = ledger(database)
    job = claimed(books).job
    with pytest.raises(ResponseError, match="out of order"):
        books.publish(job, frames=frames(Stage.COARSE, 1))
    with pytest.raises(ResponseError, match="refined before coarse"):
        books.publish(job, frames=frames(Stage.REFINED, 0))
    books.publish(job, frames=frames(Stage.COARSE, 0, 1))
    again = books.publish(job, frames=frames(Stage.COARSE, 0, 1, 2, 3) + frames(Stage.REFINED, 0))
    assert isinstance(again, Published)
    assert (again.coarse_done, again.refined_done) == (4, 1)
    events = await queue.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    told = [(event.data["stage"], event.data["index"]) for event in events if event.type is EventType.FRAME]
    assert told == [("coarse", 0), ("coarse", 1), ("coarse", 2), ("coarse", 3), ("refined", 0)]
    assert [event.type for event in events].count(EventType.COARSE_READY) == 1
    assert set(await queue.frames(job_id)) == {(Stage(stage), index) for stage, index in told}
    assert await queue.frame(job_id, Stage.REFINED, 0) == PICTURE


@pytest.mark.parametrize("first", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_a_job_ends_once(queue: JobQueue, database: redis.Redis, first: JobStatus) -> None:
    job_id = await submit(queue)
    books = ledger(database)
    job = claimed(books).job
    ended = books.finish(job, status=first, error=JobError(code="c", message="m"), artifacts={"video": PICTURE})
    assert isinstance(ended, Job)
    assert (ended.status, ended.artifacts) == (first, {"video": PICTURE})
    assert books.finish(job, status=first) == ended
    for other in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED} - {first}:
        assert books.finish(job, status=other) is Verdict.LOST
    assert books.publish(job, frames=frames(Stage.COARSE, 0)) is Verdict.LOST
    assert (await queue.cancel(job_id)).status is first
    assert release(database, "w") == {}
    assert [kind.terminal for kind in await types(queue, job_id)] == [False, False, True]


async def test_giving_back_costs_nothing_and_keeps_the_order(queue: JobQueue, database: redis.Redis) -> None:
    ids = [await submit(queue) for _ in range(3)]
    for _ in range(2 * MAX_ATTEMPTS):
        books = ledger(database)
        jobs = [claimed(books).job for _ in range(2)]
        assert [job.id for job in jobs] == ids[:2]
        for job in reversed(jobs):
            assert books.give_back(job.id, job.attempt) == "queued"
    job = await queue.get(ids[0])
    assert (job.status, job.stalled_attempts, job.suspect) == (JobStatus.QUEUED, 0, False)
    assert [await queue.position(job_id) for job_id in ids] == [1, 2, 3]


async def test_a_job_lost_too_often_fails_and_progress_starts_the_count_anew(
    queue: JobQueue, database: redis.Redis
) -> None:
    job_id = await submit(queue)

    # The unit persisted at the second claim forgives that one and the first.
    outcomes = []
    for attempt in range(1, MAX_ATTEMPTS + 3):
        job = claimed(ledger(database)).job
        assert (job.attempt, job.suspect) == (attempt, attempt > 1)
        if attempt == 2:
            unit = UnitRecord(stage=Stage.COARSE, start=0, frames=(PICTURE,) * 4)
            ledger(database).publish(job, frames=frames(Stage.COARSE, 0, 1, 2, 3), unit=("coarse/0", unit))
            assert not (await queue.get(job_id)).suspect
        outcomes.append(release(database, "w")[job_id])
    assert outcomes == ["queued"] * (MAX_ATTEMPTS + 1) + ["failed"]
    ended = await queue.get(job_id)
    assert ended.error is not None
    assert (ended.status, ended.error.code, ended.coarse_done) == (JobStatus.FAILED, "worker_lost", 4)
    assert (await types(queue, job_id))[-1] is EventType.FAILED


async def test_a_lease_that_ended_is_swept_only_by_who_may_judge(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    silent = ledger(database, "silent", lease=0.2)
    claimed(silent)
    other = ledger(database, "other")
    assert other.sweep(judge_leases=Judge.YES).swept == {}
    await asyncio.sleep(0.25)
    assert other.sweep(judge_leases=Judge.NO).swept == {}
    assert other.sweep(judge_leases=Judge.YES).swept == {job_id: "queued"}
    assert other.sweep(judge_leases=Judge.YES).swept == {}
    assert claimed(other).job.attempt == 2


async def test_beats_keep_a_lease_and_hear_of_stops(queue: JobQueue, database: redis.Redis) -> None:
    job_id, late = await submit(queue), await submit(queue, deadline=0.3)
    books = ledger(database, lease=0.3)
    held = [(claim.job.id, claim.job.attempt) for claim in (claimed(books), claimed(books))]
    assert [job for job, _ in held] == [job_id, late]
    assert books.beat(state(), held) == (False, [Verdict.OK, Verdict.OK])
    for _ in range(3):
        await asyncio.sleep(0.15)
        books.beat(state(), held)
    assert books.sweep(judge_leases=Judge.YES).swept == {}
    assert books.beat(state(), held)[1] == [Verdict.OK, Verdict.DEADLINE]
    await queue.cancel(job_id)
    assert (await queue.get(job_id)).status is JobStatus.IN_PROGRESS
    assert books.beat(state(), held)[1] == [Verdict.CANCEL, Verdict.DEADLINE]
    await queue.delete(job_id)
    assert books.beat(state(), held)[1] == [Verdict.GONE, Verdict.DEADLINE]


async def test_a_deadline_passes_in_the_queue_too(queue: JobQueue, database: redis.Redis) -> None:
    by_sweep, by_claim = await submit(queue, deadline=0.01), await submit(queue, deadline=0.01)
    await asyncio.sleep(0.05)
    assert ledger(database).claim(SERVED) is None
    later = await submit(queue, deadline=0.01)
    await asyncio.sleep(0.05)
    assert ledger(database).sweep(judge_leases=Judge.NO).swept == {later: "failed"}
    for job_id in (by_sweep, by_claim, later):
        job = await queue.get(job_id)
        assert job.error is not None
        assert (job.status, job.error.code) == (JobStatus.FAILED, "deadline_exceeded")
        assert await types(queue, job_id) == [EventType.QUEUED, EventType.FAILED]


async def test_a_dead_workers_jobs_go_to_the_front_in_order(queue: JobQueue, database: redis.Redis) -> None:
    ids = [await submit(queue) for _ in range(6)]
    for _ in range(5):
        claimed(ledger(database))
    assert set(release(database, "w").values()) == {"queued"}
    assert [await queue.position(job_id) for job_id in ids] == [1, 2, 3, 4, 5, 6]


async def test_an_outage_is_no_jobs_fault(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    for _ in range(2 * MAX_ATTEMPTS):
        claimed(ledger(database))
        assert release(database, "w", cause=Cause.OUTAGE) == {job_id: "queued"}
    job = await queue.get(job_id)
    assert (job.stalled_attempts, job.suspect, job.attempt) == (0, False, 2 * MAX_ATTEMPTS)


async def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    claimed(ledger(database))
    await queue.cancel(job_id)
    assert release(database, "w") == {job_id: "cancelled"}
    assert (await types(queue, job_id))[-1] is EventType.CANCELLED


async def test_what_rqs_own_tools_delete_ends_as_cancelled(
    queue: JobQueue, database: redis.Redis, redis_url: str
) -> None:
    running, returned, waiting = [await submit(queue) for _ in range(3)]
    assert claimed(ledger(database, "silent", lease=0.05)).job.id == running
    assert claimed(ledger(database, "v")).job.id == returned
    raw = connect_bytes(redis_url)
    for job_id in (waiting, running, returned):
        RqJob.fetch(job_id, connection=raw, serializer=JSONSerializer).delete()
    raw.close()
    assert ledger(database, "v").give_back(returned, 1) == "cancelled"
    assert ledger(database).claim(SERVED) is None
    await asyncio.sleep(0.1)
    assert ledger(database).sweep(judge_leases=Judge.YES).swept == {running: "cancelled"}
    for job_id in (waiting, running, returned):
        assert (await types(queue, job_id))[-1] is EventType.CANCELLED


async def test_rq_tells_the_truth(queue: JobQueue, database: redis.Redis, redis_url: str) -> None:
    running, done, waiting = [await submit(queue) for _ in range(3)]
    raw = connect_bytes(redis_url)
    worker = GriditWorker("w", connection=raw, mailbox=Mailbox())
    worker.register_birth()  # type: ignore[no-untyped-call]
    books = ledger(database)
    jobs = [claimed(books).job for _ in range(2)]
    books.finish(jobs[1], status=JobStatus.COMPLETED)
    said = rq_info(redis_url)
    assert "gridit-normal | 1, 1 executing, 1 finished" in said.replace("█", "").replace("  ", " "), said
    assert "busy" in said

    def status(job_id: str) -> str:
        return str(RqJob.fetch(job_id, connection=raw, serializer=JSONSerializer).get_status().value)

    rq_queue = Queue("gridit-normal", connection=raw, serializer=JSONSerializer)
    assert [status(job_id) for job_id in (running, done, waiting)] == ["started", "finished", "queued"]
    assert rq_queue.get_job_ids() == [waiting]
    assert StartedJobRegistry(queue=rq_queue).get_job_ids() == [running]
    assert rq_queue.finished_job_registry.get_job_ids() == [done]
    assert [execution.job_id for execution in worker.get_current_executions(refresh=True)] == [running]
    result = RqJob.fetch(done, connection=raw, serializer=JSONSerializer).latest_result()
    assert result is not None
    assert result.type.name == "SUCCESSFUL"
    assert release(database, "w") == {running: "queued"}
    assert StartedJobRegistry(queue=rq_queue).get_job_ids(cleanup=False) == []
    assert rq_queue.get_job_ids() == [running, waiting]
    assert raw.smembers("rq:workers") == set()
    raw.close()


def rq_info(redis_url: str) -> str:
    command = [sys.executable, "-m", "rq.cli", "info", "--url", redis_url, "--serializer", "json"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
