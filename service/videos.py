"""/v1/videos: create, read, list, cancel and delete jobs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.responses import JSONResponse

from service import metrics, views
from service.admission import JOB_ID, Origin, checked_key, checked_traceparent, submit
from service.bodies import read_fields
from service.context import Context, Services
from service.requests import parse
from service.sending import matches
from workers.contracts.errors import GriditError
from workers.contracts.job import Job, JobStatus
from workers.queue.client import Order, Submitted

router = APIRouter(prefix="/v1/videos", tags=["videos"])
JobId = Annotated[str, Path(pattern=JOB_ID, description="The id of the job.")]

POLL_AFTER_MS = {JobStatus.QUEUED: 1000, JobStatus.IN_PROGRESS: 500}
CREATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"$ref": "#/components/schemas/VideoRequest"}}
            for kind in ("application/json", "multipart/form-data")
        },
    }
}


@router.post("", status_code=202, summary="Queue a job", openapi_extra=CREATE_BODY)
async def create(
    request: Request,
    services: Context,
    idempotency_key: Annotated[str | None, Header()] = None,
    traceparent: Annotated[str | None, Header()] = None,
) -> Response:
    """202 and the job, which is queued durably. The same `Idempotency-Key` and body give the same job."""
    origin = Origin(idempotency_key=checked_key(idempotency_key), traceparent=checked_traceparent(traceparent))
    return await _create(request, services, origin=origin)


@router.put("/{job_id}", status_code=202, summary="Queue a job under your own id", openapi_extra=CREATE_BODY)
async def create_named(
    request: Request, job_id: JobId, services: Context, traceparent: Annotated[str | None, Header()] = None
) -> Response:
    """Repeat-safe: the same id and body give the same job."""
    origin = Origin(job_id=job_id, traceparent=checked_traceparent(traceparent))
    return await _create(request, services, origin=origin)


@router.get("", summary="List jobs")
async def list_jobs(
    services: Context,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = Order.DESC,
    status: JobStatus | None = None,
) -> dict[str, Any]:
    found = await services.queue.list_jobs(after=after, limit=limit, order=order, status=status)
    return views.page([views.video(job, now=services.now()) for job in found.items], has_more=found.has_more)


@router.get("/{job_id}", summary="The job")
async def get_job(job_id: JobId, services: Context, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """`openai-poll-after-ms` says when it is worth asking again."""
    job = await services.queue.get(job_id)
    body = await current_view(services, job)
    etag = f'W/"{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if job.status in POLL_AFTER_MS:
        headers["openai-poll-after-ms"] = str(POLL_AFTER_MS[job.status])
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return JSONResponse(body, headers=headers)


@router.post("/{job_id}/cancel", summary="Stop at the next step and keep the frames made")
async def cancel(job_id: JobId, services: Context) -> dict[str, Any]:
    """Repeat-safe; a job that has ended stays as it is."""
    before = await services.queue.get(job_id)
    job = await services.queue.cancel(job_id)
    if before.status is JobStatus.QUEUED and job.status is JobStatus.CANCELLED:
        metrics.JOBS.labels(job.spec.model, job.status.value).inc()
    return await current_view(services, job)


@router.delete("/{job_id}", summary="Cancel if needed, and delete everything")
async def delete(job_id: JobId, services: Context) -> dict[str, Any]:
    """Repeat-safe: an id that is gone is deleted."""
    await services.queue.delete(job_id)
    await asyncio.to_thread(services.store.delete_tree, f"jobs/{job_id}")
    return views.deleted(job_id, kind="video.deleted")


async def current_view(services: Services, job: Job) -> dict[str, Any]:
    """The `video` object with the job's present place in its queue."""
    position = await services.queue.position(job.id) if job.status is JobStatus.QUEUED else None
    return views.video(job, now=services.now(), position=position)


async def _create(request: Request, services: Services, *, origin: Origin) -> Response:
    try:
        asked = parse(await read_fields(request))
        submitted = await submit(services, asked, origin=origin, max_queued=services.settings.max_queued)
    except GriditError as error:
        metrics.JOBS_REJECTED.labels(error.code).inc()
        raise
    return await _accepted(services, submitted)


async def _accepted(services: Services, submitted: Submitted) -> Response:
    headers = {"location": f"/v1/videos/{submitted.job.id}"}
    if not submitted.created:
        headers["idempotent-replayed"] = "true"
    return JSONResponse(await current_view(services, submitted.job), 202, headers=headers)
