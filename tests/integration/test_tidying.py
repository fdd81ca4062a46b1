"""The files that nobody names: whatever died in between, they are found and deleted, and no others are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import redis

from tests.integration.conftest import Workers
from tests.integration.following import SERVED, ended, some_frames, submit, until
from tests.twins import spec
from workers import results
from workers.contracts import keys
from workers.contracts.errors import StoreError
from workers.contracts.job import JobStatus, Stage, StoredObject, UnitRecord
from workers.queue.accounts import Accounts
from workers.queue.client import JobQueue
from workers.queue.ledger import Frame, Ledger
from workers.storage import DirectoryStore
from workers.tidying import GRACE, OWNER, Tidier

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def tidier(store: DirectoryStore, database: redis.Redis) -> Tidier:
    return Tidier(store, Accounts(database))


def put(store: DirectoryStore, path: str, *, age: float = 0.0) -> StoredObject:
    """A file, so many seconds old."""
    stored = store.put(path, path.encode(), media_type="x/y")
    os.utime(store.path(stored), (time.time() - age,) * 2)
    return stored


def left(store: DirectoryStore) -> set[str]:
    return {found.path for found in store.files()}


async def test_an_ended_job_keeps_what_it_names(
    queue: JobQueue, store: DirectoryStore, tidier: Tidier, database: redis.Redis
) -> None:
    reference = put(store, "jobs/x/reference.npy")
    job = (await queue.submit(spec(frames=2, input_reference=reference), job_id="x", body_digest="", max_queued=9)).job
    ledger = Ledger(database, "w", lease_seconds=60, keep_seconds=60)
    claim = ledger.claim(SERVED)
    assert claim is not None
    frames = tuple(put(store, f"{results.tree(job.id)}/coarse/{i}") for i in range(2))
    unit = UnitRecord(stage=Stage.COARSE, start=0, frames=frames, result=put(store, f"{results.raw_tree(job.id)}/0"))
    ledger.publish(claim.job, frames=[Frame(Stage.COARSE, 0, frames[0])], unit=("coarse/0", unit))
    everything = left(store)
    tidier.tidy(job.id)
    assert left(store) == everything, "while it may go on nothing is deleted"
    video = put(store, f"{results.tree(job.id)}/video.mp4")
    ledger.finish(claim.job, status=JobStatus.COMPLETED, artifacts={"video": video})
    tidier.tidy(job.id)
    assert left(store) == {reference.path, frames[0].path, video.path}
    assert database.zcard(keys.LITTER) == 0
    await queue.delete(job.id)
    tidier.tidy(job.id)
    assert not left(store)
    assert not (store.root / "jobs" / "x").exists()


async def test_orphans_are_old_files_without_a_record(
    queue: JobQueue, store: DirectoryStore, tidier: Tidier, database: redis.Redis
) -> None:
    await queue.submit(spec(), job_id="known", body_digest="", max_queued=9)
    database.hset(keys.file("file-known"), "id", "file-known")
    kept = {
        put(store, path, age=age).path
        for path, age in {
            "jobs/known/reference.npy": 2 * GRACE,
            "files/file-known/a.jsonl": 2 * GRACE,
            "jobs/submitting/reference.npy": GRACE / 2,
        }.items()
    }
    for path in ("jobs/never-queued/reference.npy", "jobs/dead/coarse/.partial-12", "files/file-lost/a.jsonl"):
        put(store, path, age=2 * GRACE)
    found = list(tidier.orphans(time.time()))
    assert sorted(found) == ["files/file-lost", "jobs/dead", "jobs/never-queued"]
    assert left(store) == kept | {OWNER}
    assert list(tidier.orphans(time.time())) == []
    assert list(tidier.orphans(time.time() + GRACE)) == ["jobs/submitting"], "an hour later"


async def test_a_store_of_another_queue_is_left_alone(
    store: DirectoryStore, tidier: Tidier, database: redis.Redis
) -> None:
    list(tidier.orphans(time.time()))
    put(store, "jobs/theirs/coarse/0", age=2 * GRACE)
    database.flushall()  # as another server looks, or this one without its data
    with pytest.raises(StoreError, match="store of its own"):
        list(tidier.orphans(time.time()))
    assert "jobs/theirs/coarse/0" in left(store)


async def test_one_worker_in_an_hour_looks_for_orphans(database: redis.Redis) -> None:
    accounts = Accounts(database)
    assert accounts.take_turn(seconds=100)
    assert not accounts.take_turn(seconds=100)
    assert 0 < database.ttl(keys.ORPHANS) <= 100


@pytest.mark.faults
async def test_latents_of_a_job_that_ended_while_every_worker_was_dead(queue: JobQueue, workers: Workers) -> None:
    """Its raw results go when a worker lives again, its frames when its time is up."""
    short = {"lease_seconds": 0.8, "beat_seconds": 0.2, "artifact_seconds": 8.0}
    dead = workers.start("dead", tick_seconds=0.05, **short)
    job_id = await submit(queue, spec(frames=24))
    await some_frames(queue, job_id)
    dead.kill()
    dead.join()
    raw, tree = (workers.data_dir / "store" / path for path in (results.raw_tree(job_id), results.tree(job_id)))
    assert list(raw.iterdir())
    await queue.cancel(job_id)  # asked for only: it was running, and nobody is there to hear it
    workers.start("next", **short)
    assert (await ended(queue, job_id)).status is JobStatus.CANCELLED
    await until(lambda: queue.get(job_id), lambda _: not raw.exists())
    assert list(tree.iterdir()), "its frames are kept"
    await until(lambda: queue.list_jobs(), lambda page: not page.items)
    assert not tree.exists()
