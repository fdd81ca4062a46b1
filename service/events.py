"""/v1/videos/{id}/events: the job's stored events as SSE, replayed and then followed, until the terminal one.

`id:` is the event's place in the job, so `Last-Event-ID` (or `?after=`) resumes with nothing missing and nothing twice.
`video.progress` is derived here, carries no id and is never replayed. A reader that leaves only ends its own stream.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Query
from fastapi.sse import format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Send

from service import views
from service.context import Context, Services
from service.following import Following, Pause
from service.metrics import STREAM_CLIENTS
from service.videos import JobId, current_view
from workers.contracts.errors import GriditError, InvalidRequest, NotFound, StoreError
from workers.contracts.event import Event, EventType
from workers.contracts.job import Job, JobStatus, Stage
from workers.queue.feed import ReplayTruncated

router = APIRouter(prefix="/v1/videos/{job_id}", tags=["events"])

COMMENT_SECONDS = 15.0
"""A comment after so much silence keeps proxies from closing the stream."""
PROGRESS_SECONDS = 0.5
"""Least time between two progress events."""
RETRY_MS = 1000
MOST_INLINE_BYTES = 64 * 1024
"""Larger frames are sent by URL even where inline was asked for."""
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@router.get("/events", summary="Follow the job (SSE)", response_class=StreamingResponse)
async def events(
    job_id: JobId,
    services: Context,
    after: Annotated[int, Query(ge=0, description="Resume after this event.")] = 0,
    inline: Annotated[int, Query(ge=0, le=1, description="1: small frames come along as base64.")] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Replays what is stored, then follows; ends after the terminal event, which carries the full job."""
    job = await services.queue.get(job_id)
    reader = Reader(services, job, position=_resume_point(last_event_id, after), inlines=inline == 1)
    return EventStream(reader.chunks(), media_type="text/event-stream", headers=HEADERS)


def _resume_point(last_event_id: str | None, after: int) -> int:
    """A reconnecting browser repeats its first URL, so the header wins."""
    if not last_event_id:
        return after
    if not (last_event_id.isascii() and last_event_id.isdigit()):
        raise InvalidRequest("Last-Event-ID must be the id of an event of this job.", param="Last-Event-ID")
    return int(last_event_id)


class EventStream(StreamingResponse):
    """Closes its source with the connection, not when the garbage collector finds it."""

    body_iterator: AsyncGenerator[bytes, None]

    async def stream_response(self, send: Send) -> None:
        async with contextlib.aclosing(self.body_iterator):
            await super().stream_response(send)


@dataclass
class Reader:
    """One reader of one job. `job` is the record as far as this reader has been told of it."""

    services: Services
    job: Job
    position: int
    inlines: bool
    told_at: float = float("-inf")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The lines of the stream."""
        STREAM_CLIENTS.inc()
        source = cast("AsyncGenerator[Event, None]", self.services.feed.follow(self.job.id, after=self.position))
        following = Following(source, stop=self.services.draining)
        try:
            yield format_sse_event(retry=RETRY_MS)
            while not self._is_over and (event := await following.next(within=COMMENT_SECONDS)) is not Pause.END:
                for chunk in await self._tell(event):
                    yield chunk
        except GriditError as error:
            yield _broken(error)
        finally:
            STREAM_CLIENTS.dec()
            await following.close()

    @property
    def _is_over(self) -> bool:
        return self.job.status.terminal and self.position >= self.job.seq

    async def _tell(self, event: Event | Pause) -> list[bytes]:
        """An event as it goes out, and the progress it makes, if that is due; of silence, a comment."""
        if isinstance(event, Pause):
            return [format_sse_event(comment="still here")]
        self.position = event.seq
        data = views.event(self.job.id, event)
        if event.type.terminal:
            data["video"] = await self._final_view(event.type)
        if event.type is not EventType.FRAME:
            return [_message(data, event=event.type, seq=event.seq)]
        stage, index = Stage(event.data["stage"]), int(event.data["index"])
        self._count(stage, index)
        if self.inlines:
            data |= await self._inline(stage, index)
        return [_message(data, event=event.type, seq=event.seq), *self._due_progress()]

    def _count(self, stage: Stage, index: int) -> None:
        name = "coarse_done" if stage is Stage.COARSE else "refined_done"
        self.job = self.job.evolve(**{name: max(getattr(self.job, name), index + 1)})

    def _due_progress(self) -> list[bytes]:
        now = asyncio.get_running_loop().time()
        if now - self.told_at < PROGRESS_SECONDS:
            return []
        self.told_at = now
        return [_message(views.progress_event(self.job), event=EventType.PROGRESS)]

    async def _inline(self, stage: Stage, index: int) -> dict[str, Any]:
        try:
            stored = await self.services.queue.frame(self.job.id, stage, index)
            if stored.bytes > MOST_INLINE_BYTES:
                return {}
            data = await asyncio.to_thread(self.services.store.read, stored)
        except (NotFound, StoreError):
            return {}  # deleted meanwhile; its URL says so
        return {"media_type": stored.media_type, "data": base64.b64encode(data).decode()}

    async def _final_view(self, end: EventType) -> dict[str, Any]:
        try:
            self.job = await self.services.queue.get(self.job.id)
        except NotFound:  # deleted meanwhile; the rest of what was known is still true
            self.job = self.job.evolve(status=JobStatus(end.value.removeprefix("video.")))
        return await current_view(self.services, self.job)


def _message(data: dict[str, Any], *, event: str, seq: int | None = None) -> bytes:
    return format_sse_event(event=event, data_str=json.dumps(data), id=None if seq is None else str(seq))


def _broken(error: GriditError) -> bytes:
    """The last line of a stream that cannot go on: trimmed history, a deleted job, Redis out."""
    skipped = {"skipped": error.skipped} if isinstance(error, ReplayTruncated) else {}
    return _message({"code": error.code, "message": error.message, **skipped}, event="error")
