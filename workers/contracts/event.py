"""The events of a job, as stored in its stream and sent over SSE.

An event's id is its place in the job, dense from 1. The stream `keys.events(job)` holds it under the explicit id
"<seq>-0" with the fields `type` and `data` (JSON). Exactly one terminal event ends every stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from workers.contracts.job import Value


class EventType(StrEnum):
    """Names on the wire."""

    QUEUED = "video.queued"
    """{"position"}"""
    STARTED = "video.started"
    """{"attempt"}"""
    FRAME = "video.frame"
    """{"index", "stage", "width", "height", "sha256"}; the URL is added by the service."""
    COARSE_READY = "video.coarse.ready"
    """{}: every coarse frame exists; once."""
    PROGRESS = "video.progress"
    """{"progress", "coarse_done", "refined_done", "total"}; sent, never stored."""
    COMPLETED = "video.completed"
    """{}: the service adds the full job."""
    FAILED = "video.failed"
    CANCELLED = "video.cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the stream ends here."""
        return self in (EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED)


class Event(Value):
    """One stored event."""

    seq: int
    type: EventType
    at: float
    """Seconds since the epoch."""
    data: dict[str, Any] = {}

    def to_fields(self) -> dict[str, str]:
        """Fields of the stream entry."""
        return {"type": self.type.value, "at": repr(self.at), "data": json.dumps(self.data)}

    @classmethod
    def from_entry(cls, entry_id: str, fields: Mapping[str, str]) -> Self:
        """From an XRANGE / XREAD entry with decoded strings."""
        return cls(
            seq=int(entry_id.split("-")[0]),
            type=EventType(fields["type"]),
            at=float(fields["at"]),
            data=json.loads(fields["data"]),
        )
