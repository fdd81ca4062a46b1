"""The way into the queue, for single requests and for lines of a batch alike: check, resolve, submit.

Everything that can be refused is refused before anything is written; the bound on waiting jobs is checked in the same
atomic call that queues the job. While the store has too little room that bound is nought: nothing new is queued, and
who asks again for what was queued before still finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from service.context import Services
from service.references import frames_npy
from service.requests import VideoRequest
from service.resolving import Resolved, resolve
from workers.contracts.errors import (
    GriditError,
    InvalidRequest,
    NotFound,
    QueueFull,
    StorageFull,
    StoreError,
    Unavailable,
)
from workers.contracts.job import JobSpec, new_job_id
from workers.queue.client import Submitted
from workers.storage import Store

JOB_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
LONGEST_KEY = 255
FULL_RETRY_SECONDS = 30
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Origin:
    """Who asks, and under which name of their own."""

    job_id: str | None = None
    idempotency_key: str | None = None
    traceparent: str | None = None


async def submit(services: Services, request: VideoRequest, *, origin: Origin, max_queued: int) -> Submitted:
    """Queue the job, or find the one that the same id or idempotency key has queued before."""
    resolved = resolve(request, catalogue=await services.queue.catalogue())
    full = await lacks_room(services)
    job_id = origin.job_id or new_job_id()
    spec, kept = resolved.spec, False
    if request.input_reference:
        if full is not None:
            raise full
        spec = await asyncio.to_thread(_with_reference, services.store, job_id, request.input_reference, resolved)
        kept = True
    try:
        submitted = await services.queue.submit(
            spec,
            job_id=job_id,
            idempotency_key=origin.idempotency_key,
            body_digest=request.digest,
            max_queued=max_queued if full is None else 0,
            warnings=resolved.warnings,
            traceparent=origin.traceparent,
        )
    except GriditError as error:
        if kept:
            await _forget(services, job_id)
        if full is not None and isinstance(error, QueueFull):
            raise full from None
        raise
    if kept and submitted.job.id != job_id:
        await _forget(services, job_id)
    return submitted


async def lacks_room(services: Services) -> StorageFull | None:
    """Why no new job is taken: the room that is left is for those that were accepted. None: there is enough."""
    free, floor = await asyncio.to_thread(services.store.free_bytes), services.settings.store_free_bytes
    if free is None or free >= floor:
        return None
    message = (
        f"The store has {free} bytes free, and new jobs are taken from {floor} on (GRIDIT_STORE_FREE_BYTES); "
        "delete finished jobs, or try again later."
    )
    return StorageFull(message, retry_after=FULL_RETRY_SECONDS)


def _with_reference(store: Store, job_id: str, references: Sequence[str], resolved: Resolved) -> JobSpec:
    """The spec with the user's own frames, which are kept before the job is."""
    entry, spec = resolved.entry, resolved.spec
    data, count = frames_npy(references, size=entry.coarse_size, most=entry.grid**2)
    if count > spec.num_frames:
        raise InvalidRequest(
            f"num_frames must be at least {count}, the frames of input_reference (got {spec.num_frames}).",
            param="num_frames",
        )
    path = f"jobs/{job_id}/reference-{hashlib.sha256(data).hexdigest()[:12]}.npy"
    side = entry.coarse_size
    try:
        stored = store.put(path, data, media_type="application/x-npy", width=side, height=side)
    except StorageFull:
        with suppress(StoreError):  # the folder that was made for it
            store.delete([path])
        raise
    return spec.evolve(input_reference=stored, reference_frames=count)


async def _forget(services: Services, job_id: str) -> None:
    """Nothing was queued under this id: what was kept for it goes, unless it is an older job's."""
    with suppress(Unavailable):
        try:
            await services.queue.get(job_id)
        except NotFound:
            await asyncio.to_thread(services.store.delete_tree, f"jobs/{job_id}")


def checked_key(key: str | None) -> str | None:
    """An Idempotency-Key header that can be kept."""
    if key is not None and not (1 <= len(key) <= LONGEST_KEY and key.isprintable()):
        raise InvalidRequest(
            f"Idempotency-Key must be 1 to {LONGEST_KEY} printable characters.", param="Idempotency-Key"
        )
    return key


def checked_traceparent(header: str | None) -> str | None:
    """A W3C traceparent; anything else is dropped, as that standard asks."""
    return header if header and _TRACEPARENT.fullmatch(header) else None
