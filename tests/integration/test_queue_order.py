"""Who is claimed first: priorities that age, tenants that take turns by work, bundles, workers of different pace."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from tests.integration.following import SERVED
from tests.twins import MODEL, spec
from workers.contracts.catalogue import WorkerState
from workers.contracts.job import MAX_ATTEMPTS, JobStatus, Numerics, Priority, Stage, UnitRecord
from workers.queue.client import JobQueue
from workers.queue.ledger import Judge, Ledger
from workers.queue.line import AGING_SECONDS, TURN, cost
from workers.queue.release import release

pytestmark = pytest.mark.anyio


async def submit(queue: JobQueue, *, tenant: str = "default", frames: int = 4, **changes: Any) -> str:
    asked = spec(frames=frames, **changes)
    return (await queue.submit(asked, tenant=tenant, body_digest="d", max_queued=1000)).job.id


def ledger(database: redis.Redis, name: str = "w") -> Ledger:
    return Ledger(database, name, lease_seconds=4, keep_seconds=100)


def claimed(books: Ledger, served: dict[str, Numerics] = SERVED, *, pace: float | None = None) -> str | None:
    claim = books.claim(served, row_seconds=pace)
    return None if claim is None else claim.job.id


def grow_older(database: redis.Redis, job_id: str, seconds: float) -> None:
    """As if it had been submitted so much earlier."""
    key = f"gridit:job:{job_id}"
    database.hincrbyfloat(key, "created_at", -seconds)


def alive(database: redis.Redis, name: str, *, pace: float | None, slots: int = 4, hash_: str = "h") -> Ledger:
    """A worker that says it is ready; `claimed` with the same pace is what it would do."""
    database.sadd("rq:workers", f"rq:worker:{name}")
    state = WorkerState(
        name=name,
        phase="ready",
        pid=1,
        host="h",
        slots=slots,
        started_at=0,
        heartbeat_at=0,
        models=(MODEL,),
        hashes={MODEL: hash_},
        row_seconds=pace,
    )
    books = ledger(database, name)
    books.beat(state, [])
    return books


async def test_higher_priorities_first_and_a_turn_for_lower_ones_that_have_waited_long(
    queue: JobQueue, database: redis.Redis
) -> None:
    low, normal = [await submit(queue, priority=priority) for priority in (Priority.LOW, Priority.NORMAL)]
    high = [await submit(queue, priority=Priority.HIGH) for _ in range(TURN + 2)]
    grow_older(database, low, AGING_SECONDS + 1)
    grow_older(database, normal, AGING_SECONDS - 30)
    order = [claimed(ledger(database)) for _ in range(TURN + 5)]
    assert order == [*high[: TURN - 1], low, *high[TURN - 1 :], normal, None]


async def test_a_great_many_old_low_jobs_get_their_turns_and_no_more(queue: JobQueue, database: redis.Redis) -> None:
    low = [await submit(queue, priority=Priority.LOW) for _ in range(12)]
    high = [await submit(queue, priority=Priority.HIGH) for _ in range(40)]
    for job_id in low:
        grow_older(database, job_id, 100 * AGING_SECONDS)
    order = [claimed(ledger(database)) for _ in range(40)]
    assert [place for place, job_id in enumerate(order) if job_id in low] == list(range(TURN - 1, 40, TURN))
    assert set(order) <= {*low, *high}


async def test_tenants_take_turns_by_work_however_much_one_submits(queue: JobQueue, database: redis.Redis) -> None:
    dice = random.Random(3)
    costs: dict[str, tuple[str, float]] = {}
    for tenant, jobs in (("greedy", 40), ("modest", 12), ("third", 20)):
        for _ in range(jobs):
            frames = dice.randrange(1, 12)
            costs[await submit(queue, tenant=tenant, frames=frames)] = (tenant, cost(spec(frames=frames)))
    longest = max(length for _, length in costs.values())
    had = dict.fromkeys(("greedy", "modest", "third"), 0.0)
    left = {tenant: sum(1 for owner, _ in costs.values() if owner == tenant) for tenant in had}
    while all(left.values()):
        job_id = claimed(ledger(database))
        assert job_id is not None
        tenant, length = costs[job_id]
        had[tenant] += length
        left[tenant] -= 1
        # Start-time fair queueing: while both wait, no two are further apart than a longest job of each.
        assert max(had.values()) - min(had.values()) <= 2 * longest, had


async def test_an_idle_tenant_saves_nothing_up_and_owes_nothing(queue: JobQueue, database: redis.Redis) -> None:
    first = [await submit(queue, tenant="a", frames=40) for _ in range(3)]
    assert [claimed(ledger(database)) for _ in first] == first
    assert not database.keys("gridit:tenants:*")
    assert not database.keys("gridit:virtual")
    mixed = [await submit(queue, tenant=tenant, frames=4) for tenant in ("a", "b", "a", "b")]
    assert [claimed(ledger(database)) for _ in mixed] == mixed


async def test_the_place_that_is_told_is_the_order_of_claims(queue: JobQueue, database: redis.Redis) -> None:
    dice = random.Random(8)
    ids = [
        await submit(
            queue, tenant=dice.choice("abc"), frames=dice.randrange(1, 30), priority=dice.choice(list(Priority))
        )
        for _ in range(40)
    ]
    for claim in [ledger(database).claim(SERVED) for _ in range(5)]:
        assert claim is not None
        ledger(database).give_back(claim.job.id, claim.job.attempt)
    places = {job_id: await queue.position(job_id) for job_id in ids}
    order = [claimed(ledger(database)) for _ in ids]
    assert [places[job_id] for job_id in order if job_id is not None] == list(range(1, len(ids) + 1))


async def test_a_job_waits_for_a_worker_with_its_bundle_and_holds_up_no_other(
    queue: JobQueue, database: redis.Redis
) -> None:
    foreign = await submit(queue, model="other")
    own = await submit(queue)
    assert [claimed(ledger(database)), claimed(ledger(database))] == [own, None]
    assert (await queue.get(foreign)).status is JobStatus.QUEUED
    assert claimed(ledger(database), {"other": SERVED[MODEL]}) == foreign


async def test_a_begun_job_goes_on_only_with_the_very_bundle(queue: JobQueue, database: redis.Redis) -> None:
    begun = await submit(queue)
    assert claimed(ledger(database, "dead")) == begun
    release(database, "dead")
    newer = {MODEL: SERVED[MODEL].evolve(bundle_hash="newer")}
    fresh = await submit(queue)
    assert claimed(ledger(database), newer) == fresh
    assert claimed(ledger(database), newer) is None
    assert claimed(ledger(database)) == begun


async def test_a_begun_job_ends_when_only_another_bundle_of_its_name_is_offered_for_long(
    queue: JobQueue, database: redis.Redis
) -> None:
    begun = await submit(queue)
    claimed(ledger(database, "dead"))
    release(database, "dead")
    books = alive(database, "newer", pace=1.0, hash_="newer")
    assert books.sweep(judge_leases=Judge.NO).swept == {}
    database.hset(f"gridit:job:{begun}", "queued_at", 1.0)
    assert books.sweep(judge_leases=Judge.NO).swept == {begun: "failed"}
    error = (await queue.get(begun)).error
    assert error is not None
    assert error.code == "bundle_unavailable"
    assert not database.smembers("gridit:lines")


def deal(workers: Sequence[tuple[Ledger, float]], jobs: int) -> list[int]:
    """Everybody asks in turn until all jobs are claimed or nobody takes one."""
    got = [0 for _ in workers]
    while sum(got) < jobs:
        before = sum(got)
        for index, (books, pace) in enumerate(workers):
            got[index] += claimed(books, pace=pace) is not None
        if sum(got) == before:
            break
    return got


async def test_workers_share_by_their_pace(queue: JobQueue, database: redis.Redis) -> None:
    for _ in range(10):
        await submit(queue)
    fast, slow = alive(database, "fast", pace=0.01, slots=16), alive(database, "slow", pace=0.04, slots=16)
    assert deal([(slow, 0.04), (fast, 0.01)], 10) == [2, 8]


async def test_an_idle_worker_never_leaves_a_job_to_a_full_one(queue: JobQueue, database: redis.Redis) -> None:
    for _ in range(3):
        await submit(queue)
    fast, slow = alive(database, "fast", pace=0.01, slots=1), alive(database, "slow", pace=0.5, slots=1)
    assert claimed(slow, pace=0.5) is None
    assert claimed(fast, pace=0.01) is not None
    assert claimed(slow, pace=0.5) is not None


async def test_a_job_that_waited_is_taken_by_whoever_is_idle(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    alive(database, "fast", pace=0.01)
    slow = alive(database, "slow", pace=0.5)
    assert claimed(slow, pace=0.5) is None
    database.hset(f"gridit:job:{job_id}", "queued_at", 1.0)
    assert claimed(slow, pace=0.5) == job_id


async def test_a_worker_with_room_that_does_not_claim_holds_up_no_busy_one(
    queue: JobQueue, database: redis.Redis
) -> None:
    ids = [await submit(queue) for _ in range(2)]
    slow = alive(database, "slow", pace=0.5)
    assert claimed(slow, pace=0.5) == ids[0]
    alive(database, "fast", pace=0.01)
    assert claimed(slow, pace=0.5) is None
    database.hset(f"gridit:job:{ids[1]}", "queued_at", 1.0)
    assert claimed(slow, pace=0.5) == ids[1]


async def test_who_does_not_know_its_pace_takes_one_job_at_first(queue: JobQueue, database: redis.Redis) -> None:
    ids = [await submit(queue) for _ in range(3)]
    alive(database, "other", pace=0.01)
    new = alive(database, "new", pace=None)
    assert [claimed(new), claimed(new)] == [ids[0], None]
    database.srem("rq:workers", "rq:worker:other")
    assert claimed(new) == ids[1]


async def test_a_silent_worker_is_left_nothing(queue: JobQueue, database: redis.Redis) -> None:
    job_id = await submit(queue)
    alive(database, "silent", pace=0.01)
    database.hset("gridit:worker:silent", "beaten_at", json.dumps(1.0))
    assert claimed(alive(database, "slow", pace=0.5), pace=0.5) == job_id


async def test_suspects_are_tried_one_at_a_time_and_alone_pay_for_it(queue: JobQueue, database: redis.Redis) -> None:
    poison, *others = [await submit(queue) for _ in range(4)]
    for _ in range(4):
        claimed(ledger(database, "w0"))
    release(database, "w0")
    late = await submit(queue)
    outcomes = []
    for attempt in range(1, MAX_ATTEMPTS):
        books = ledger(database, f"w{attempt}")
        assert [claimed(books) for _ in range(3)] == [poison, late, None], "no second suspect beside the first"
        outcomes.append(release(database, f"w{attempt}"))
    assert [outcome[poison] for outcome in outcomes] == ["queued"] * (MAX_ATTEMPTS - 2) + ["failed"]
    stalled = [(await queue.get(job_id)).stalled_attempts for job_id in (*others, late)]
    assert stalled == [1, 1, 1, 0]


async def test_the_next_suspect_comes_when_one_has_proved_itself(queue: JobQueue, database: redis.Redis) -> None:
    first, second = [await submit(queue) for _ in range(2)]
    for _ in range(2):
        claimed(ledger(database, "dead"))
    release(database, "dead")
    books = ledger(database)
    claim = books.claim(SERVED)
    assert claim is not None
    assert (claim.job.id, claimed(books)) == (first, None)
    books.publish(claim.job, frames=(), unit=("coarse/0", UnitRecord(stage=Stage.COARSE, start=0, frames=())))
    assert claimed(books) == second


async def test_a_lease_that_ends_while_a_suspect_is_tried_costs_the_others_nothing(
    queue: JobQueue, database: redis.Redis
) -> None:
    suspect = await submit(queue)
    claimed(ledger(database, "dead"))
    release(database, "dead")
    silent = Ledger(database, "silent", lease_seconds=0.05, keep_seconds=100)
    other = await submit(queue)
    assert [claimed(silent), claimed(silent)] == [suspect, other]
    await asyncio.sleep(0.1)
    assert ledger(database).sweep(judge_leases=Judge.YES).swept == {suspect: "queued", other: "queued"}
    jobs = [await queue.get(job_id) for job_id in (suspect, other)]
    assert [(job.stalled_attempts, job.suspect) for job in jobs] == [(2, True), (0, False)]
