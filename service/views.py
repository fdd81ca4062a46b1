"""Values as they go over the wire: a job as OpenAI's `video` object, its frames, its events' URLs.

Pure functions of values; URLs are paths, so they hold behind any proxy.
"""

from __future__ import annotations

from typing import Any

from workers.contracts.event import Event, EventType
from workers.contracts.job import Job, JobStatus, Stage, StoredObject

NEARLY_DONE = 99
"""Progress of a job that is not completed, at most."""


def video(job: Job, *, now: float, position: int | None = None) -> dict[str, Any]:
    """The `video` object of a job; `position` is its place in its queue while it waits."""
    spec = job.spec
    return {
        "id": job.id,
        "object": "video",
        "created_at": int(job.created_at),
        "started_at": _whole(job.started_at),
        "completed_at": _whole(job.completed_at),
        "expires_at": _whole(job.expires_at),
        "status": job.status.value,
        "progress": progress(job),
        "model": spec.model,
        "prompt": spec.class_label,
        "seconds": f"{job.frames_total / spec.fps:g}",
        "size": spec.size,
        "remixed_from_video_id": None,
        "error": job.error.model_dump() if job.error else None,
        "num_frames": spec.num_frames,
        "fps": spec.fps,
        "seed": spec.seed,
        "num_inference_steps": spec.num_inference_steps,
        "sampler": spec.sampler,
        "spacing": spec.spacing,
        "mode": spec.mode.value,
        "slow_motion": spec.slow_motion,
        "cache": spec.cache,
        "reference_frames": spec.reference_frames,
        "guidance_scale": spec.guidance_scale,
        "stages": spec.stages.value,
        "priority": spec.priority.value,
        "frames": {"total": job.frames_total, "coarse_done": job.coarse_done, "refined_done": job.refined_done},
        "queue_position": position if job.status is JobStatus.QUEUED else None,
        "eta_seconds": _eta(job, now=now),
        "attempt": job.attempt,
        "cancel_requested_at": _whole(job.cancel_requested_at),
        "stage_durations": {stage: round(seconds, 3) for stage, seconds in job.stage_durations.items()},
        "metadata": spec.metadata,
        "warnings": list(job.warnings),
        "content": {variant: content_url(job.id, variant) for variant in sorted(job.artifacts)},
        "urls": {name: f"/v1/videos/{job.id}{tail}" for name, tail in _RELATED.items()},
    }


_RELATED = {"self": "", "events": "/events", "frames": "/frames", "content": "/content", "cancel": "/cancel"}


def progress(job: Job) -> int:
    """Percent of the frames of all stages that exist; 100 once the job is completed and never before."""
    if job.status is JobStatus.COMPLETED:
        return 100
    done, wanted = _frames_done(job)
    return min(NEARLY_DONE, 100 * done // wanted)


def frame_url(job_id: str, stage: Stage, index: int) -> str:
    """Where one frame is served."""
    return f"/v1/videos/{job_id}/frames/{index}?stage={stage.value}"


def content_url(job_id: str, variant: str) -> str:
    """Where a finished file is served."""
    return f"/v1/videos/{job_id}/content?variant={variant}"


def frame(job_id: str, key: tuple[Stage, int], stored: StoredObject) -> dict[str, Any]:
    """One entry of a job's list of frames."""
    stage, index = key
    return {
        "object": "video.frame",
        "index": index,
        "stage": stage.value,
        "url": frame_url(job_id, stage, index),
        "width": stored.width,
        "height": stored.height,
        "sha256": stored.sha256,
        "bytes": stored.bytes,
        "media_type": stored.media_type,
    }


def event(job_id: str, stored: Event) -> dict[str, Any]:
    """The data of a stored event, with the URLs that the store leaves out."""
    data = {"type": stored.type.value, "video_id": job_id, "seq": stored.seq, "created_at": stored.at, **stored.data}
    if stored.type is EventType.FRAME:
        data["url"] = frame_url(job_id, Stage(stored.data["stage"]), int(stored.data["index"]))
    if stored.type is EventType.COARSE_READY:
        data["url"] = f"/v1/videos/{job_id}/frames?stage={Stage.COARSE.value}"
    return data


def progress_event(job: Job) -> dict[str, Any]:
    """The data of a `video.progress` event."""
    return {
        "type": EventType.PROGRESS.value,
        "video_id": job.id,
        "progress": progress(job),
        "coarse_done": job.coarse_done,
        "refined_done": job.refined_done,
        "total": job.frames_total,
    }


def page(items: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """OpenAI's list object."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }


def deleted(resource_id: str, *, kind: str) -> dict[str, Any]:
    """OpenAI's answer to a DELETE."""
    return {"id": resource_id, "object": kind, "deleted": True}


def _frames_done(job: Job) -> tuple[int, int]:
    if job.spec.stages is Stage.COARSE:
        return job.coarse_done, job.frames_total
    return job.coarse_done + job.refined_done, 2 * job.frames_total


def _eta(job: Job, *, now: float) -> float | None:
    """Seconds left at the pace so far; None while nothing is to be seen of it."""
    done, wanted = _frames_done(job)
    if job.status is not JobStatus.IN_PROGRESS or job.started_at is None or not done:
        return None
    return round(max(0.0, now - job.started_at) * (wanted - done) / done, 1)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
