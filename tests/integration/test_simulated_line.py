"""The line of waiting jobs, simulated and real: whoever asks gets the same job here and on a real server."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

import pytest
import redis

from tests.twins import spec
from workers import device, inhand, worker
from workers.contracts.catalogue import WorkerState
from workers.contracts.job import Numerics, Priority
from workers.queue.client import JobQueue
from workers.queue.ledger import Ledger
from workers.simulate import host, simulation
from workers.simulate.arrivals import Arrival
from workers.simulate.line import FairLine
from workers.simulate.policies import Ours
from workers.simulate.sharing import Hand

pytestmark = pytest.mark.anyio

MODELS = ("a", "b")
HALF_AN_HOUR = 1800.0
PACES = (0.01, 0.011, 0.02, 0.05)


@dataclass
class Asking:
    """A worker, led by hand, here and there."""

    books: Ledger
    hand: Hand

    def claim(self) -> str | None:
        """On the server."""
        served = {
            model: Numerics(bundle_hash="h", engine="twin", precision="fp32", version="1") for model in self.hand.models
        }
        claim = self.books.claim(served, row_seconds=self.hand.row_seconds)
        return None if claim is None else claim.job.id


def alive(database: redis.Redis, hand: Hand) -> Ledger:
    """A worker that says of itself what the hand says."""
    database.sadd("rq:workers", f"rq:worker:{hand.name}")
    state = WorkerState(
        name=hand.name,
        phase="ready",
        pid=1,
        host="h",
        slots=hand.slots,
        started_at=0,
        heartbeat_at=0,
        models=hand.models,
        hashes=dict.fromkeys(hand.models, "h"),
        row_seconds=hand.row_seconds,
    )
    books = Ledger(database, hand.name, lease_seconds=60, keep_seconds=100)
    books.beat(state, [])
    return books


def crew(database: redis.Redis, dice: random.Random) -> list[Asking]:
    """Workers of different pace, room and models."""
    askers = []
    for index in range(dice.randint(1, 4)):
        pace = dice.choice([None, *PACES])
        models = dice.choice([MODELS, MODELS[:1], MODELS])
        hand = Hand(f"w{index}", models, slots=dice.choice([1, 3, 20]), held=0, row_seconds=pace)
        askers.append(Asking(alive(database, hand), hand))
    return askers


def heard(database: redis.Redis, hand: Hand, dice: random.Random) -> Hand:
    """A worker that has lately asked for jobs, or has not."""
    asks = dice.random() < 0.5
    key = f"gridit:asks:{hand.name}"
    database.set(key, 1, px=60_000) if asks else database.delete(key)
    return replace(hand, asks=asks)


async def submit(queue: JobQueue, database: redis.Redis, dice: random.Random) -> Arrival:
    """A job at random, some of them old."""
    job = spec(frames=dice.randint(1, 40), model=dice.choice(MODELS), priority=dice.choice(list(Priority)))
    tenant = dice.choice("xyz")
    submitted = (await queue.submit(job, tenant=tenant, body_digest="d", max_queued=1000)).job
    age = dice.choice([0.0, dice.random() * HALF_AN_HOUR])
    database.hincrbyfloat(f"gridit:job:{submitted.id}", "created_at", -age)
    return Arrival(submitted.id, submitted.created_at - age, tenant, job)


@pytest.mark.parametrize("seed", range(6))
async def test_who_asks_gets_the_same_job_here_and_there(queue: JobQueue, database: redis.Redis, seed: int) -> None:
    dice, line, claims, refusals = random.Random(seed), FairLine(), 0, 0
    late: set[str] = set()
    askers = crew(database, dice)
    for _ in range(150):
        if dice.random() < 0.5:
            arrival = await submit(queue, database, dice)
            line.submit(arrival)
            if dice.random() < 0.3:
                late.add(arrival.id)
                database.hset(f"gridit:job:{arrival.id}", "queued_at", 1.0)
            continue
        asker = dice.choice(askers)
        if dice.random() < 0.1:  # it has run something since
            asker.hand = replace(asker.hand, row_seconds=dice.choice(PACES))
            alive(database, asker.hand)
        first = line.first(asker.hand.models, now=time.time())
        others = [heard(database, other.hand, dice) for other in askers if other is not asker]
        waited = 60.0 if first is not None and first.id in late else 0.0
        if first is not None and Ours().leaves(first, asker.hand, others, waited=waited):
            first, refusals = None, refusals + 1
        assert asker.claim() == (None if first is None else first.id)
        if first is not None:
            line.take(first)
            asker.hand = replace(asker.hand, held=asker.hand.held + 1)
            claims += 1
    assert claims > 10
    assert refusals > 5 or len(askers) == 1


def test_what_simulated_workers_go_by_is_what_real_ones_go_by() -> None:
    assert simulation.POLL_SECONDS == worker.POLL_SECONDS
    assert host.ROW_SHARE == device.SHARE
    assert host.REFINED_AT_ONCE == inhand.REFINED_AT_ONCE
