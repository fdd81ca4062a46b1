"""A job's pictures: the list of its frames, one frame while the job still runs, and the finished files.

Files are served from the store with `Range` and a strong `ETag`. What does not exist yet is 409, what never will 404.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from service import views
from service.archive import Archive, npz_frames, zip_frames
from service.context import Context, Services
from service.sending import matches, send
from service.videos import JobId
from workers.contracts.errors import Conflict, InvalidRequest, NotFound, NotReady, StoreGone
from workers.contracts.job import Job, JobStatus, Stage, StoredObject

router = APIRouter(prefix="/v1/videos/{job_id}", tags=["pictures"])

VARIANTS = ("video", "gif", "spritesheet", "frames", "npz", "thumbnail")
"""Every name of the contract; a job has some of them."""
ARCHIVES: dict[str, tuple[Callable[..., Archive], str]] = {
    "frames": (zip_frames, "application/zip"),
    "npz": (npz_frames, "application/x-npz"),
}
"""Made of the frames when they are asked for."""
IfNoneMatch = Annotated[str | None, Header()]


@router.get("/frames", summary="The frames that exist")
async def list_frames(job_id: JobId, services: Context, stage: Stage | None = None) -> dict[str, Any]:
    """In order of stage and index; `stage` picks one."""
    job = await services.queue.get(job_id)
    found = sorted((await services.queue.frames(job_id)).items())
    entries = [views.frame(job_id, key, stored) for key, stored in found if stage in (None, key[0])]
    return {"object": "list", "data": entries, "total": job.frames_total, "has_more": False}


@router.get("/frames/{index}", summary="One frame, as soon as it exists", response_class=FileResponse)
async def get_frame(
    job_id: JobId,
    index: Annotated[int, Path(ge=0)],
    services: Context,
    stage: Stage = Stage.REFINED,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """PNG. 409 while the frame is still to come, 404 if it never will."""
    job = await services.queue.get(job_id)
    if index >= job.frames_total:
        raise NotFound(f"index must be at most {job.frames_total - 1} for this job (got {index}).", param="index")
    try:
        stored = await services.queue.frame(job_id, stage, index)
    except NotFound:
        raise _missing_frame(job, stage, index) from None
    return send(services, stored, if_none_match=if_none_match)


@router.get("/content", summary="A finished file", response_class=FileResponse)
async def get_content(
    job_id: JobId,
    services: Context,
    variant: Annotated[str, Query(description=f"One of {', '.join(VARIANTS)}.")] = "video",
    if_none_match: IfNoneMatch = None,
) -> Response:
    """`video` is the MP4; `frames` (ZIP) and `npz` hold every last-stage frame, also of a job that was cut short."""
    job = await services.queue.get(job_id)
    if variant in job.artifacts:
        name = f"{job_id}{_suffix(job.artifacts[variant])}"
        return send(services, job.artifacts[variant], if_none_match=if_none_match, filename=name)
    if variant not in VARIANTS:
        raise _unknown_variant(job, variant)
    if not job.status.terminal:
        raise NotReady(f"The job is {job.status.value}; its {variant} is there once it is completed.", param="variant")
    if variant in ARCHIVES and (stored := await _last_stage(services, job)):
        return await _archive(services, job, variant, stored=stored, if_none_match=if_none_match)
    if job.status is JobStatus.COMPLETED:
        raise _unknown_variant(job, variant)
    raise Conflict(f"The job is {job.status.value}; it has no {variant}.", param="variant")


async def _last_stage(services: Services, job: Job) -> dict[int, StoredObject]:
    frames = await services.queue.frames(job.id)
    return {index: stored for (stage, index), stored in sorted(frames.items()) if stage is job.spec.stages}


async def _archive(
    services: Services, job: Job, variant: str, *, stored: dict[int, StoredObject], if_none_match: str | None
) -> Response:
    make, media_type = ARCHIVES[variant]
    try:
        archive = await asyncio.to_thread(make, services.store, stored=stored)
    except StoreGone:
        raise NotFound("Frames are gone: their time was up, or they were deleted.") from None
    headers = {"etag": f'"{archive.digest}"'}
    if matches(if_none_match, headers["etag"]):
        archive.remove()
        return Response(status_code=304, headers=headers)
    return FileResponse(
        archive.path,
        headers=headers,
        media_type=media_type,
        filename=f"{job.id}-frames{archive.path.suffix}",
        background=BackgroundTask(archive.remove),
    )


def _missing_frame(job: Job, stage: Stage, index: int) -> NotFound | NotReady:
    never = job.status.terminal or (stage is Stage.REFINED and job.spec.stages is Stage.COARSE)
    if never:
        made = job.coarse_done if stage is Stage.COARSE else job.refined_done
        return NotFound(f"The job is {job.status.value} and has {made} {stage.value} frames; {index} is none of them.")
    return NotReady(f"The {stage.value} frame {index} is not made yet; follow /v1/videos/{job.id}/events.")


def _unknown_variant(job: Job, variant: str) -> InvalidRequest:
    available = ", ".join(sorted({*job.artifacts, *ARCHIVES}))
    return InvalidRequest(f"variant must be one of {available} for this job (got {variant[:64]!r}).", param="variant")


def _suffix(stored: StoredObject) -> str:
    name = stored.path.rpartition("/")[2]
    return f".{name.rpartition('.')[2]}" if "." in name else ""
