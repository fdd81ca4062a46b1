"""Publishing, encoding, cancelling, deleting, expiring and losing jobs, in any order: no file, no key is left over."""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import redis

from tests.integration.following import SERVED
from tests.integration.interleaving import Crew, Gate, Others
from tests.integration.leftovers import check_nothing_left
from tests.twins import spec
from workers.contracts import keys
from workers.contracts.job import JobStatus, Stage, StoredObject
from workers.queue.client import JobQueue
from workers.queue.ledger import Frame, Ledger, Verdict
from workers.storage import DirectoryStore

OPERATIONS = 28
"""About as many as one job takes."""


@pytest.mark.parametrize("runs", [25, pytest.param(200, marks=pytest.mark.faults)])
def test_no_file_and_no_key_is_left_over(runs: int, redis_url: str, database: redis.Redis, tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    acted = 0
    store = DirectoryStore(tmp_path / "store")
    for seed in range(runs):
        dice = random.Random(seed)
        job_id = f"job-{seed}-end"
        asyncio.run(submit(redis_url, store, job_id, dice))
        others = Others(redis_url, store.root, job_id)
        acts = [others.cancel, others.delete, others.lose, others.expire]
        moments = dice.sample(range(OPERATIONS), dice.randrange(1, 4))
        gate = Gate({moment: dice.choice(acts) for moment in moments})
        Crew(redis_url, store.root, gate).run(dice)
        others.clean()
        check_nothing_left(database, store, {job_id})
        ends[str(database.hget(keys.job(job_id), "status") or "gone")] += 1
        acted += not gate.plan
        others.delete()
        others.close()
        check_nothing_left(database, store, {job_id})
        database.delete(keys.events(job_id))
    print(f"\n{runs} interleavings: {dict(ends)}; every act took place in {acted}")
    assert min(ends[end] for end in ("completed", "cancelled", "gone")) >= runs // 20
    assert acted > runs // 2


@pytest.mark.anyio
async def test_a_new_job_is_not_that_of_the_deleted_ones_worker(queue: JobQueue, database: redis.Redis) -> None:
    """The same id, deleted and queued again before the worker that had it knows."""
    before, after = (Ledger(database, name, lease_seconds=60, keep_seconds=600) for name in ("before", "after"))
    claims = []
    for ledger in (before, after):
        await queue.submit(spec(frames=2), job_id="mine", body_digest="d", max_queued=9)
        claims.append(ledger.claim(SERVED))
        if ledger is before:
            await queue.delete("mine")
    first, second = (claim.job for claim in claims if claim is not None)
    frame = StoredObject(path="f", sha256="0" * 64, bytes=1, media_type="x/y")
    assert before.publish(first, frames=[Frame(Stage.COARSE, 0, frame)]) is Verdict.LOST
    assert before.finish(first, status=JobStatus.COMPLETED) is Verdict.LOST
    assert after.finish(second, status=JobStatus.COMPLETED) == await queue.get("mine")


async def submit(redis_url: str, store: DirectoryStore, job_id: str, dice: random.Random) -> None:
    """A job of one or two grids, some with frames of the user's own."""
    reference = keep_reference(store, job_id) if dice.random() < 0.3 else None
    wish = spec(frames=dice.choice([2, 6]), steps=1, seed=dice.randrange(100), input_reference=reference)
    queue = JobQueue.connect(redis_url)
    await queue.submit(wish, job_id=job_id, body_digest="d", max_queued=9)
    await queue.close()


def keep_reference(store: DirectoryStore, job_id: str) -> StoredObject:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 8, 8, 3), np.uint8))
    return store.put(f"jobs/{job_id}/reference.npy", buffer.getvalue(), media_type="application/x-npy")
