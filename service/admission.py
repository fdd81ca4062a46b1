"""The way into the queue, for single requests and for lines of a batch alike: check, resolve, submit.

Everything that can be refused is refused before anything is written; the bound on waiting jobs is checked in the same
atomic call that queues the job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.context import Services
from service.requests import VideoRequest, resolve
from workers.contracts.errors import InvalidRequest
from workers.queue.client import Submitted

JOB_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
LONGEST_KEY = 255
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
    return await services.queue.submit(
        resolved.spec,
        job_id=origin.job_id,
        idempotency_key=origin.idempotency_key,
        body_digest=request.digest,
        max_queued=max_queued,
        warnings=resolved.warnings,
        traceparent=origin.traceparent,
    )


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
