"""What RQ's job hash names as the function of a job, and how that hash is made.

The function is never called: our worker claims the job and runs its plan. RQ's own tools read the rest.
"""

from __future__ import annotations

from typing import NoReturn

from redis import Redis
from rq.job import Job as RqJob
from rq.job import JobStatus as RqStatus
from rq.serializers import JSONSerializer
from rq.utils import now

from workers.contracts.job import JobSpec


def generate(job_id: str) -> NoReturn:
    """Refuses: a stock RQ worker has no engines."""
    raise RuntimeError(f"{job_id} can only be run by `gridit worker`")


_UNCONNECTED = Redis()
"""RQ wants a connection to make a job; this one is never opened."""


def rq_hash(job_id: str, spec: JobSpec, *, keep_seconds: int) -> dict[str, str | bytes]:
    """RQ's hash of a queued job."""
    job = RqJob.create(
        f"{__name__}.{generate.__name__}",
        args=(job_id,),
        id=job_id,
        connection=_UNCONNECTED,
        serializer=JSONSerializer,
        origin=spec.priority.queue,
        status=RqStatus.QUEUED,
        description=f"{spec.model}: {spec.num_frames} frames",
        timeout=-1,
        result_ttl=keep_seconds,
        failure_ttl=keep_seconds,
    )
    job.enqueued_at = now()
    fields = {name: value for name, value in job.to_dict().items() if value is not None}
    return {name: value if isinstance(value, (bytes, str)) else str(value) for name, value in fields.items()}
