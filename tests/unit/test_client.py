"""The client: every error by its class, and events that survive a bad line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from service.client import Client, Event, ReplayTruncated, Unexpected, Unreachable, messages
from workers.contracts import errors
from workers.contracts.event import EventType
from workers.contracts.job import JobStatus

VIDEO = {
    "id": "video_1",
    "status": "in_progress",
    "model": "demo",
    "num_frames": 2,
    "seed": 7,
    "frames": {"total": 2},
    "fps": 12,
}
FRAMES = [("video.queued", 1), ("video.started", 2), ("video.frame", 3), ("video.frame", 4), ("video.completed", 5)]


def client(handler: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://service", transport=httpx.MockTransport(handler))


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"code": code, "detail": "what is wrong", "error": {"param": "num_frames"}}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json", **headers})


def sse(name: str, number: int | None) -> bytes:
    identity = "" if number is None else f"id: {number}\n"
    return f"event: {name}\n{identity}data: {json.dumps({'seq': number})}\n\n".encode()


class Line(httpx.SyncByteStream):
    """A connection that ends, well or badly, after some bytes."""

    def __init__(self, chunks: list[bytes], *, breaks: type[Exception] | None = None) -> None:
        self.chunks = chunks
        self.breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.breaks is not None:
            raise self.breaks("cut")


class FlakyService:
    """Each connection brings so many events and half of one more, then breaks."""

    def __init__(self, *, each: int) -> None:
        self.each = each
        self.asked: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        after = int(request.headers["last-event-id"])
        self.asked.append(after)
        rest = [sse(*event) for event in FRAMES if event[1] > after]
        torn = [rest[self.each][:-5]] if len(rest) > self.each else []
        stream = Line([b"retry: 1\n\n", *rest[: self.each], sse("video.progress", None), *torn], breaks=httpx.ReadError)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)


def test_events_come_once_and_in_order_however_often_the_line_breaks() -> None:
    service = FlakyService(each=2)
    with client(service) as each_two:
        events = list(each_two.events("video_1"))
    stored = [event for event in events if event.id]
    assert [(event.type.value, event.id) for event in stored] == FRAMES
    assert service.asked == [0, 2, 4]
    assert Event(0, EventType.PROGRESS, {"seq": None}) in events


def test_a_service_that_cannot_read_its_queue_is_asked_again() -> None:
    gone = b'event: error\ndata: {"code": "unavailable", "message": "the queue does not answer"}\n\n'
    answers = iter([[sse(*event) for event in FRAMES[:3]] + [gone], [gone], [sse(*event) for event in FRAMES[3:]]])
    with client(lambda _: httpx.Response(200, stream=Line(next(answers)))) as patient:
        assert [event.id for event in patient.events("video_1")] == [1, 2, 3, 4, 5]


def test_following_a_job_from_its_last_event_ends_at_once() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, stream=Line([b"retry: 1\n\n"]))
        return httpx.Response(200, json={**VIDEO, "status": "completed"})

    with client(handler) as late:
        assert list(late.events("video_1", after=5)) == []


def test_following_is_given_up_when_nobody_answers_for_long() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with client(handler) as alone, pytest.raises(Unreachable, match="http://service"):
        list(alone.events("video_1", patience=0.2))


def test_trimmed_history_is_an_error_of_its_own() -> None:
    body = b'event: error\ndata: {"code": "replay_truncated", "skipped": 3}\n\n'
    with client(lambda _: httpx.Response(200, stream=Line([body]))) as late, pytest.raises(ReplayTruncated, match="3"):
        list(late.events("video_1"))


def subclasses(kind: type[errors.GriditError]) -> set[type[errors.GriditError]]:
    return {kind, *(below for child in kind.__subclasses__() for below in subclasses(child))}


@pytest.mark.parametrize(
    "kind",
    sorted((k for k in subclasses(errors.GriditError) if k.__module__ == errors.__name__), key=str),
)
def test_every_error_of_the_contract_comes_back_as_its_class(kind: type[errors.GriditError]) -> None:
    with client(lambda _: problem(400, kind.code, **{"retry-after": "7"})) as caller, pytest.raises(kind) as caught:
        caller.get("video_1")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.param, caught.value.retry_after) == ("what is wrong", "num_frames", 7)


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"[]", b'{"code": "news"}'])
def test_an_answer_of_something_else_is_unexpected(body: bytes) -> None:
    with client(lambda _: httpx.Response(502, content=body)) as caller, pytest.raises(Unexpected, match="502"):
        caller.get("video_1")


def test_a_job_keeps_fields_that_this_version_does_not_know() -> None:
    with client(lambda _: httpx.Response(200, json=VIDEO)) as caller:
        video = caller.get("video_1")
    assert video.status is JobStatus.IN_PROGRESS
    assert json.loads(video.model_dump_json())["fps"] == 12


def test_submit_sends_what_is_given_and_nothing_else() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == {"prompt": "sky", "num_frames": 2}
        assert request.headers["idempotency-key"] == "mine"
        return httpx.Response(202, json=VIDEO)

    with client(handler) as caller:
        assert caller.submit(prompt="sky", num_frames=2, seed=None, idempotency_key="mine").id == "video_1"


def test_messages_follow_the_standard() -> None:
    lines = ["\ufeff: hello", "data: a", "data:b", "", "event: only", "", "data:  two blanks", "id:9", ""]
    assert list(messages(lines[1:])) == [{"data": "a\nb"}, {"data": " two blanks", "id": "9"}]


def test_every_error_of_the_contract_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in subclasses(errors.GriditError) if kind.__module__ == errors.__name__]
    assert sorted(kind.code for kind in kinds) == sorted({kind.code for kind in kinds})
