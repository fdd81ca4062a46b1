"""Following jobs to their end, and the law that a finished one obeys; shared by the tests of worker processes."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from tests import twins
from workers.contracts.event import EventType
from workers.contracts.job import Job, JobSpec, JobStatus, Numerics, Stage
from workers.queue.client import JobQueue
from workers.storage import DirectoryStore, Store

T = TypeVar("T")
SERVED = {twins.MODEL: Numerics(bundle_hash="h", engine="twin", precision="fp32", version="1")}
"""What a worker led by hand claims for."""
PATIENCE = 60.0
"""Seconds; far more than anything here takes on a machine that does nothing else."""


async def until(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """Look until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds(seen := await look()):
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.01)
    return seen


async def submit(queue: JobQueue, job: JobSpec) -> str:
    return (await queue.submit(job, body_digest="d", max_queued=100)).job.id


async def ended(queue: JobQueue, job_id: str) -> Job:
    return await until(lambda: queue.get(job_id), lambda job: job.status.terminal)


async def some_frames(queue: JobQueue, job_id: str, *, refined: int = 1) -> Job:
    return await until(lambda: queue.get(job_id), lambda job: job.refined_done >= refined)


async def check_whole(queue: JobQueue, data_dir: Path, job_id: str) -> None:
    """The law of a finished job, with its files in a data directory."""
    await check_whole_in(queue, DirectoryStore(data_dir / "store"), job_id)


async def check_whole_in(queue: JobQueue, store: Store, job_id: str) -> None:
    """The law of a finished job: every frame once and in order, refined after coarse, right bytes, one end."""
    job = await queue.get(job_id)
    assert job.status is JobStatus.COMPLETED, job.error
    events = await queue.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    frames = [(event.data["stage"], event.data["index"]) for event in events if event.type is EventType.FRAME]
    for stage in Stage:
        assert [index for name, index in frames if name == stage] == list(range(job.spec.num_frames))
    assert all(frames.index(("coarse", i)) < frames.index(("refined", i)) for i in range(job.spec.num_frames))
    kinds = [event.type for event in events]
    assert [kinds.count(kind) for kind in (EventType.COARSE_READY, EventType.COMPLETED)] == [1, 1]
    assert [kind for kind in kinds if kind.terminal] == kinds[-1:]
    expected = expected_frames(job.spec)
    stored = await queue.frames(job_id)
    assert {name: hashlib.sha256(pixels(store.read(stored[name])).tobytes()).digest() for name in stored} == {
        name: hashlib.sha256(frame.tobytes()).digest() for name, frame in expected.items()
    }
    video = job.artifacts["video"]
    assert store.read(video)[4:8] == b"ftyp"
    results = f"jobs/{job_id}/results"
    await until(lambda: asyncio.to_thread(lambda: list(store.files(results))), lambda left: not left)  # soon after
    assert set(job.stage_durations) == {"queue", "coarse", "refine", "encode"}


def expected_frames(job: JobSpec) -> dict[tuple[Stage, int], np.ndarray]:
    """What the twin makes of a job, alone and undisturbed."""
    results: dict[str, np.ndarray] = {}
    frames: dict[tuple[Stage, int], np.ndarray] = {}
    for unit in twins.plan(job):
        results[unit.key] = twins.compute(job, unit, results[unit.requires[0]] if unit.requires else None)
        stage = Stage.COARSE if unit.kind.value == "coarse" else Stage.REFINED
        for index, frame in zip(unit.frames, results[unit.key], strict=True):
            frames[stage, index] = (frame * 255).astype(np.uint8)
    return frames


def pixels(data: bytes) -> np.ndarray:
    from models.media import png

    return png.decode(data)
