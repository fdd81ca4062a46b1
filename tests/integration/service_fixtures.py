"""A real service for tests: uvicorn in a thread on a real Redis, and a worker that is led by hand.

`Hand` is the worker's half of the queue, driven step by step: it claims, publishes and finishes by the same scripts as
a worker does, so a test decides what exists when. Pictures are tiny one-colour PNGs.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from redis import Redis

from service.commands import Server, listen
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.job import Job, JobError, JobStatus, Numerics, Stage, StoredObject
from workers.contracts.settings import Settings
from workers.queue.ledger import Frame, Ledger
from workers.storage import Store, open_store

CLASSES = ("sky", "lava")
SAMPLERS = ("euler", "heun")
MAX_FRAMES = 64
NUMERICS = Numerics(bundle_hash="0" * 64, engine="torch", precision="fp32", version="1")
PATIENCE = 60.0
"""Seconds; a machine that builds and trains beside the tests may be slow. Nothing waits so long where all is well."""


def catalogue_entry(**changes: Any) -> CatalogueEntry:
    """A bundle with two classes, 4x4 grids and frames of 16 and 32 pixels."""
    entry = CatalogueEntry(
        name="demo",
        hash="0" * 64,
        classes=CLASSES,
        samplers=SAMPLERS,
        grid=4,
        coarse_size=16,
        refined_size=32,
        max_frames=MAX_FRAMES,
        max_steps=100,
        max_guidance_scale=8.0,
        default_num_frames=16,
        default_fps=8,
        default_sampler="euler",
        default_steps=4,
        default_refine_steps=2,
        default_guidance_scale=1.5,
        is_default=True,
        seen_at=1.0,
    )
    return entry.evolve(**changes)


@dataclass(frozen=True)
class Api:
    """A running service: its HTTP client, its Redis, its store."""

    http: httpx.Client
    settings: Settings
    redis: Redis
    server: Server

    def create(self, **fields: Any) -> dict[str, Any]:
        """A job of four frames, unless told otherwise."""
        response = self.http.post("/v1/videos", json={"prompt": "sky", "num_frames": 4} | fields)
        assert response.status_code == 202, response.text
        created: dict[str, Any] = response.json()
        return created

    def get(self, path: str) -> dict[str, Any]:
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        got: dict[str, Any] = response.json()
        return got

    def reset(self) -> None:
        """Empty Redis, but for one bundle in the catalogue."""
        self.redis.flushall()
        self.hand().ledger.announce([catalogue_entry()])

    def hand(self) -> Hand:
        ledger = Ledger(self.redis, "by-hand", lease_seconds=60, keep_seconds=600)
        return Hand(ledger, open_store(self.settings))

    @property
    def traces(self) -> set[str]:
        """Names of all keys in Redis, but the catalogue's and the pump's."""
        return {key for key in self.redis.scan_iter() if key not in ("gridit:catalogue", "gridit:batches:pump")}


@contextlib.contextmanager
def running_service(redis_url: str, data_dir: Path, **settings: Any) -> Iterator[Api]:
    """A service on a free port; Redis is taken as it is found."""
    chosen = Settings(redis_url=redis_url, data_dir=data_dir, port=0, **settings)
    with Redis.from_url(redis_url, decode_responses=True, protocol=2) as redis, listen(chosen) as listener:
        server = Server(chosen)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=PATIENCE) as http:
            yield Api(http, chosen, redis, server)
        server.handle_exit(signal.SIGTERM, None)
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Hand:
    """A worker that does what it is told."""

    ledger: Ledger
    store: Store

    def claim(self) -> Job:
        claim = self.ledger.claim({"demo": NUMERICS})
        assert claim is not None
        return claim.job

    def publish(self, job: Job, stage: Stage, *indices: int) -> None:
        """Store and publish frames, each on its own."""
        for index in indices:
            stored = self.put_frame(job, stage, index)
            self.ledger.publish(job, frames=[Frame(stage, index, stored)])

    def put_frame(self, job: Job, stage: Stage, index: int) -> StoredObject:
        side = 16 if stage is Stage.COARSE else 32
        path = f"jobs/{job.id}/{stage.value}/{index:04d}.png"
        return self.store.put(path, png(side, index), media_type="image/png", width=side, height=side)

    def complete(self, job: Job, *, video: bytes = b"0123456789") -> None:
        stored = self.store.put(f"jobs/{job.id}/video.mp4", video, media_type="video/mp4")
        self.ledger.finish(job, status=JobStatus.COMPLETED, artifacts={"video": stored})

    def fail(self, job: Job, *, code: str, message: str) -> None:
        self.ledger.finish(job, status=JobStatus.FAILED, error=JobError(code=code, message=message))

    def make(self) -> Job:
        """One whole job, as a worker makes it."""
        job = self.claim()
        count = range(job.frames_total)
        self.publish(job, Stage.COARSE, *count)
        self.publish(job, Stage.REFINED, *count)
        self.complete(job)
        return job


def png(side: int, shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def wait_for(condition: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
    """Return once the condition holds; fail if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@dataclass(frozen=True)
class Told:
    """One event as it came over the wire; `id` is None for those that are not stored."""

    id: int | None
    type: str
    data: dict[str, Any]


def told(lines: Iterator[str]) -> Iterator[Told]:
    """Server-sent events, by the book; comments and `retry` are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif not line:
            if "data" in fields:
                yield Told(int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"]))
            fields = {}
