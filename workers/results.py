"""What of a job lies in the store: pictures, raw grids, the video; written there, and read back to resume.

All below `jobs/<id>/`; names carry the content's hash, so a second attempt that makes the same writes the same.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, wait
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.contracts.errors import StoreError, StoreUnavailable
from workers.contracts.job import Stage, StoredObject, UnitRecord
from workers.queue.ledger import Claim
from workers.storage import Store
from workers.tasks import STAGES, RunAlone, Task, UnitFinished

log = logging.getLogger(__name__)


def warm() -> None:
    """Load the encoders, so that the first frame does not wait for them."""
    from models.media import mp4, png

    blank = np.zeros((16, 16, 3), np.uint8)
    mp4.encode([png.decode(png.encode(blank))], fps=1)


def tree(job_id: str) -> str:
    """Everything of a job."""
    return f"jobs/{job_id}"


def raw_tree(job_id: str) -> str:
    """Raw results, which go when the job ends."""
    return f"jobs/{job_id}/results"


def keep_unit(store: Store, fact: UnitFinished, *, writers: Executor) -> UnitRecord:
    """Write a unit's pictures and, for a grid, its raw result; `writers` in parallel, for a disk syncs many as one.

    Whatever goes wrong, nothing is being written any more when this ends: its files may be about to be deleted.
    """
    stage = STAGES[fact.unit.stage.value]
    keep = partial(_keep_frame, store, fact.job_id, stage)
    raw = [writers.submit(_keep_raw, store, fact)] if stage is Stage.COARSE else []
    frames = [writers.submit(keep, index, frame) for index, frame in zip(fact.unit.frames, fact.frames, strict=True)]
    wait([*raw, *frames])
    return UnitRecord(
        stage=stage,
        start=fact.unit.frames.start,
        frames=tuple(future.result() for future in frames),
        result=raw[0].result() if raw else None,
    )


def keep_video(store: Store, job_id: str, frames: Sequence[StoredObject], *, fps: int) -> StoredObject:
    """Encode stored pictures, in order, and write the video."""
    from models.media import mp4

    data = mp4.encode(_pictures(store, frames), fps=fps)
    path = f"{tree(job_id)}/video-{_short(data)}.mp4"
    return store.put(path, data, media_type=mp4.MEDIA_TYPE, width=frames[0].width, height=frames[0].height)


def task_of(claim: Claim, store: Store) -> Task:
    """A claimed job for the runner: what is persisted is done, less the grids that cannot be read any more.

    Raises StoreUnavailable: what cannot be read now is not lost.
    """
    finished: dict[str, NDArray[np.float32]] = {}
    damaged: set[str] = set()
    for key, record in claim.units.items():
        if record.result is not None:
            try:
                finished[key] = np.load(io.BytesIO(store.read(record.result)), allow_pickle=False)
            except StoreUnavailable:
                raise
            except (StoreError, ValueError) as error:
                damaged.add(key)
                log.warning("result lost", extra={"action": "result_lost", "job_id": claim.job.id, "error": str(error)})
    return Task(
        job_id=claim.job.id,
        attempt=claim.job.attempt,
        spec=claim.job.spec,
        submitted_at=claim.job.created_at,
        finished=finished,
        done=frozenset(claim.units) - damaged,
        alone=RunAlone.UNTIL_UNIT if claim.job.suspect else RunAlone.NO,
        tenant=claim.job.tenant,
        deadline_in=claim.deadline_in,
        reference=_reference(claim.job.spec.input_reference, store),
    )


def _reference(stored: StoredObject | None, store: Store) -> NDArray[np.uint8] | None:
    """The user's own frames; None where there are none, or none any more: the job then fails with that reason."""
    if stored is None:
        return None
    try:
        frames: NDArray[np.uint8] = np.load(io.BytesIO(store.read(stored)), allow_pickle=False)
    except StoreUnavailable:
        raise
    except (StoreError, ValueError) as error:
        log.warning("reference lost", extra={"action": "reference_lost", "path": stored.path, "error": str(error)})
        return None
    return frames


def _keep_frame(store: Store, job_id: str, stage: Stage, index: int, frame: NDArray[Any]) -> StoredObject:
    from models.media import png

    data = png.encode(frame)
    path = f"{tree(job_id)}/{stage.value}/{index:04d}-{_short(data)}.png"
    return store.put(path, data, media_type=png.MEDIA_TYPE, width=frame.shape[1], height=frame.shape[0])


def _keep_raw(store: Store, fact: UnitFinished) -> StoredObject:
    buffer = io.BytesIO()
    np.save(buffer, fact.result.astype(np.float32, copy=False), allow_pickle=False)
    name = fact.unit.key.replace("/", "-")
    path = f"{raw_tree(fact.job_id)}/{name}-{_short(buffer.getvalue())}.npy"
    return store.put(path, buffer.getvalue(), media_type="application/x-npy")


def _pictures(store: Store, frames: Sequence[StoredObject]) -> Iterator[NDArray[np.uint8]]:
    from models.media import png

    for stored in frames:
        yield png.decode(store.read(stored))


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
