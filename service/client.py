"""A thin client of the HTTP API: submit, follow, fetch.

    with Client("http://127.0.0.1:8000") as client:
        video = client.submit(prompt="sky", num_frames=64)
        for event in client.events(video.id):
            print(event.type, event.data)
        Path("video.mp4").write_bytes(client.content(video.id))

Errors of the service are raised as the classes of `workers.contracts.errors`; what has no class there, and what never
reached the service, as `Unexpected` and `Unreachable`. Needs httpx and pydantic only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ConfigDict

from workers.contracts import errors
from workers.contracts.event import EventType
from workers.contracts.job import JobError, JobStatus, Stage, Value

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts to follow events again."""
PATIENCE = 60.0
"""Seconds without any answer after which following is given up."""


class Unreachable(errors.GriditError):
    """No answer from the service; the message names its address."""

    code = "unreachable"
    retryable = True


class Unexpected(errors.GriditError):
    """An answer that is no answer of this API; the message holds its status."""

    code = "unexpected_answer"


class ReplayTruncated(errors.GriditError):
    """Events that were asked for are no longer kept; the job itself still says where it stands."""

    code = "replay_truncated"


class FrameCounts(Value):
    """How far a job is."""

    total: int
    coarse_done: int = 0
    refined_done: int = 0


class Video(Value):
    """A job as the service tells it; fields that are not declared here are kept as well."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    status: JobStatus
    model: str
    progress: int = 0
    num_frames: int
    seed: int
    frames: FrameCounts
    error: JobError | None = None


@dataclass(frozen=True)
class Event:
    """One event of a job; `id` is 0 for those that are not stored."""

    id: int
    type: EventType
    data: dict[str, Any]


class Client:
    """One connection pool to one service; use as a context manager or `close()` it."""

    def __init__(self, base_url: str, *, timeout: float = 30.0, transport: httpx.BaseTransport | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, *, idempotency_key: str | None = None, **fields: Any) -> Video:
        """Queue a job (`prompt`, `num_frames`, `seed`, ...: the fields of POST /v1/videos)."""
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        body = {name: value for name, value in fields.items() if value is not None}
        return Video.model_validate(self._call("POST", "/v1/videos", json=body, headers=headers).json())

    def get(self, video_id: str) -> Video:
        return Video.model_validate(self._call("GET", f"/v1/videos/{video_id}").json())

    def cancel(self, video_id: str) -> Video:
        """Ask the job to stop; the frames it has made stay."""
        return Video.model_validate(self._call("POST", f"/v1/videos/{video_id}/cancel").json())

    def frame(self, video_id: str, index: int, *, stage: Stage = Stage.REFINED) -> bytes:
        """One frame as PNG, as soon as it is published."""
        headers = {"accept": "image/png"}
        path = f"/v1/videos/{video_id}/frames/{index}"
        return self._call("GET", path, params={"stage": stage.value}, headers=headers).content

    def content(self, video_id: str, *, variant: str = "video") -> bytes:
        """The finished file; raises NotReady before."""
        return self._call("GET", f"/v1/videos/{video_id}/content", params={"variant": variant}).content

    def models(self) -> list[dict[str, Any]]:
        """What is served, with limits, classes and samplers."""
        listed: list[dict[str, Any]] = self._call("GET", "/v1/models").json()["data"]
        return listed

    def events(self, video_id: str, *, after: int = 0, patience: float = PATIENCE) -> Iterator[Event]:
        """Every event after number `after`, once and in order, up to and including the last one of the job.

        A lost connection is taken up again where it broke; raises Unreachable after `patience` seconds without one.
        """
        pause, heard = FIRST_PAUSE, time.monotonic()
        while True:
            silent = True
            try:
                for event in self._follow(video_id, after=after):
                    silent = False
                    pause, heard = FIRST_PAUSE, time.monotonic()
                    after = event.id or after
                    yield event
                    if event.type.terminal:
                        return
                if silent and self.get(video_id).status.terminal:
                    return  # `after` was its last event
            except (Unreachable, errors.Unavailable) as error:
                if time.monotonic() - heard > patience:
                    raise
                pause = error.retry_after or pause
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _follow(self, video_id: str, *, after: int) -> Iterator[Event]:
        """The events of one connection."""
        headers = {"accept": "text/event-stream", "last-event-id": str(after)}
        try:
            with self._http.stream("GET", f"/v1/videos/{video_id}/events", headers=headers) as response:
                if response.is_error:
                    response.read()
                _raise_for(response)
                yield from _parsed(messages(response.iter_lines()))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        _raise_for(response)
        return response

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"no answer from {self.base_url} ({error or type(error).__name__}); is the service running?")


def messages(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Server-sent events (WHATWG HTML, 9.2.6) as their fields; several `data` lines are joined."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield fields
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value


def _parsed(received: Iterable[dict[str, str]]) -> Iterator[Event]:
    known = {kind.value for kind in EventType}
    for fields in received:
        data = json.loads(fields["data"])
        if fields.get("event") == "error":
            if data.get("code") == ReplayTruncated.code:
                raise ReplayTruncated(f"{data.get('skipped')} events are no longer kept; ask for the job instead")
            if data.get("code") == errors.Unavailable.code:
                raise errors.Unavailable(str(data.get("message")))
            raise Unexpected(f"the stream of events broke off: {fields['data']}")
        if fields.get("event") in known:  # a newer service may have more to say
            yield Event(int(fields.get("id") or 0), EventType(fields["event"]), data)


def _raise_for(response: httpx.Response) -> None:
    """Raise the error that a problem+json body describes."""
    if response.is_success:
        return
    where = f"{response.request.method} {response.request.url.path}"
    try:
        problem = response.json()
        kind, message = _CLASSES[problem["code"]], str(problem["detail"])
    except (ValueError, TypeError, KeyError):
        raise Unexpected(f"{where}: status {response.status_code}: {response.text[:200]}") from None
    wait = response.headers.get("retry-after", "")
    param = (problem.get("error") or {}).get("param")
    raise kind(message, param=param, retry_after=int(wait) if wait.isdigit() else None)


def _all_classes(root: type[errors.GriditError]) -> Iterator[type[errors.GriditError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _all_classes(kind)


_CLASSES = {
    kind.code: kind for kind in _all_classes(errors.GriditError) if kind.__module__ in (errors.__name__, __name__)
}
