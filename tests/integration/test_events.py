"""A job's events over SSE: complete, in order, resumable at every place, on every replica; and harmless to the job."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import Server
from tests.integration.service_fixtures import PATIENCE, Api, Told, png, running_service, told, wait_for
from workers.contracts.job import Job, Stage

STORED_EVENTS = 2 + 2 * 4 + 1 + 1
"""queued, started; two frames for each of four; coarse.ready; the end."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def service(shared_server: Server, data_dir: Path) -> Iterator[Api]:
    with running_service(shared_server.url, data_dir) as running:
        yield running


@pytest.fixture
def api(service: Api) -> Api:
    service.reset()
    return service


def stream(
    http: httpx.Client, job_id: str, *, after: int | None = None, query: str = ""
) -> Generator[Told, None, None]:
    headers = {} if after is None else {"last-event-id": str(after)}
    with http.stream("GET", f"/v1/videos/{job_id}/events{query}", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from told(response.iter_lines())


def stored(events: Iterator[Told] | list[Told]) -> list[Told]:
    return [event for event in events if event.id is not None]


def finished_job(api: Api) -> str:
    job_id: str = api.create()["id"]
    api.hand().make()
    return job_id


class TestReplay:
    def test_a_finished_job_is_told_from_beginning_to_end(self, api: Api) -> None:
        job_id = finished_job(api)
        events = stored(stream(api.http, job_id))
        assert [event.id for event in events] == list(range(1, STORED_EVENTS + 1))
        kinds = [event.type for event in events]
        assert kinds[:2] == ["video.queued", "video.started"]
        assert kinds[-1] == "video.completed"
        assert kinds.count("video.coarse.ready") == 1
        assert events[-1].data["video"] == api.get(f"/v1/videos/{job_id}")

    def test_each_frame_is_told_where_it_is_served(self, api: Api) -> None:
        job_id = finished_job(api)
        frames = [event.data for event in stored(stream(api.http, job_id)) if event.type == "video.frame"]
        assert [(f["stage"], f["index"]) for f in frames if f["stage"] == "refined"] == [
            ("refined", i) for i in range(4)
        ]
        for frame in frames:
            assert api.http.get(frame["url"]).headers["etag"] == f'"{frame["sha256"]}"'
            assert frame["width"] == frame["height"] == (16 if frame["stage"] == "coarse" else 32)
            assert "data" not in frame

    def test_small_frames_come_along_where_asked(self, api: Api) -> None:
        job_id = finished_job(api)
        events = stored(stream(api.http, job_id, query="?inline=1"))
        inlined = [base64.b64decode(event.data["data"]) for event in events if event.type == "video.frame"]
        assert inlined == [png(16, i) for i in range(4)] + [png(32, i) for i in range(4)]

    def test_resuming_anywhere_gives_exactly_the_rest(self, api: Api) -> None:
        job_id = finished_job(api)
        for position in range(STORED_EVENTS + 1):
            rest = list(range(position + 1, STORED_EVENTS + 1))
            assert [event.id for event in stored(stream(api.http, job_id, after=position))] == rest
            assert [event.id for event in stored(stream(api.http, job_id, query=f"?after={position}"))] == rest

    def test_the_header_of_a_reconnecting_browser_wins(self, api: Api) -> None:
        job_id = finished_job(api)
        events = stored(stream(api.http, job_id, after=9, query="?after=2"))
        assert [event.id for event in events] == list(range(10, STORED_EVENTS + 1))

    @pytest.mark.parametrize("last", ["x", "-1", "1.5", "٣"])
    def test_an_id_that_is_none_is_refused(self, api: Api, last: str) -> None:
        job_id = finished_job(api)
        refused = api.http.get(f"/v1/videos/{job_id}/events", headers={b"last-event-id": last.encode()})
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == "Last-Event-ID"

    def test_trimmed_history_is_owned_up_to(self, api: Api) -> None:
        job_id = finished_job(api)
        api.redis.xtrim(f"gridit:job:{job_id}:events", minid="6-0", approximate=False)
        (error,) = stream(api.http, job_id)
        assert error.type == "error"
        assert error.data["code"] == "replay_truncated"
        assert error.data["skipped"] == 5


class TestFollow:
    def test_events_arrive_as_they_happen(self, api: Api) -> None:
        job_id = api.create()["id"]
        hand = api.hand()
        events = stream(api.http, job_id)
        assert next(events).type == "video.queued"
        job = hand.claim()
        assert next(events).type == "video.started"
        hand.publish(job, Stage.COARSE, 0)
        frame, progress = next(events), next(events)
        assert (frame.type, frame.data["index"]) == ("video.frame", 0)
        assert (progress.id, progress.type) == (None, "video.progress")
        assert progress.data["progress"] == 12
        assert api.http.get(frame.data["url"]).content == png(16, 0)
        events.close()

    def test_many_readers_that_drop_at_random_lose_nothing(self, api: Api) -> None:
        job_id = api.create(num_frames=16)["id"]
        readers = [Dropper(api, job_id, every=count) for count in (1, 2, 3, 5, 8, 13)]
        for reader in readers:
            reader.start()
        api.hand().make()
        for reader in readers:
            reader.join(timeout=PATIENCE)
            assert reader.ids == list(range(1, 2 + 2 * 16 + 2 + 1))

    def test_a_reader_that_leaves_cancels_nothing(self, api: Api) -> None:
        job_id = api.create()["id"]
        hand = api.hand()
        job = hand.claim()
        events = stream(api.http, job_id)
        next(events)
        assert clients(api) == 1
        events.close()
        wait_for(lambda: clients(api) == 0)
        video = api.get(f"/v1/videos/{job_id}")
        assert (video["status"], video["cancel_requested_at"]) == ("in_progress", None)
        finish(api, job)
        assert api.get(f"/v1/videos/{job_id}")["status"] == "completed"

    def test_another_replica_takes_over_in_the_middle(self, api: Api, shared_server: Server, data_dir: Path) -> None:
        job_id = api.create()["id"]
        hand = api.hand()
        job = hand.claim()
        with running_service(shared_server.url, data_dir) as other:
            events = stream(other.http, job_id)
            seen = [next(events).id, next(events).id]
            events.close()
        finish(api, job)
        seen += [event.id for event in stored(stream(api.http, job_id, after=2))]
        assert seen == list(range(1, STORED_EVENTS + 1))

    def test_a_stopping_service_ends_its_streams_at_once(self, api: Api, shared_server: Server, data_dir: Path) -> None:
        job_id = api.create()["id"]
        with contextlib.ExitStack() as stack:
            other = stack.enter_context(running_service(shared_server.url, data_dir))
            with httpx.Client(base_url=other.http.base_url, timeout=PATIENCE) as http:
                events = stream(http, job_id)
                next(events)
                stack.close()
                assert stored(events) == []

    def test_a_deleted_job_ends_its_streams(self, api: Api) -> None:
        job_id = api.create()["id"]
        api.hand().claim()
        events = stream(api.http, job_id)
        assert [next(events).type, next(events).type] == ["video.queued", "video.started"]
        api.http.delete(f"/v1/videos/{job_id}")
        (end,) = events
        assert (end.type, end.data["video"]["status"]) == ("video.cancelled", "cancelled")

    def test_a_cancelled_job_ends_its_streams(self, api: Api) -> None:
        job_id = api.create()["id"]
        events = stream(api.http, job_id)
        next(events)
        api.http.post(f"/v1/videos/{job_id}/cancel")
        (end,) = events
        assert (end.type, end.data["video"]["status"]) == ("video.cancelled", "cancelled")


def clients(api: Api) -> int:
    line = next(line for line in api.http.get("/metrics").text.splitlines() if line.startswith("gridit_stream_clients"))
    return int(float(line.split()[1]))


def finish(api: Api, job: Job) -> None:
    hand = api.hand()
    hand.publish(job, Stage.COARSE, *range(4))
    hand.publish(job, Stage.REFINED, *range(4))
    hand.complete(job)


class Dropper(threading.Thread):
    """Reads a few events, drops the connection, resumes; until the last event."""

    def __init__(self, api: Api, job_id: str, *, every: int) -> None:
        super().__init__(daemon=True)
        self.http = httpx.Client(base_url=api.http.base_url, timeout=PATIENCE)
        self.job_id = job_id
        self.every = every
        self.ids: list[int] = []
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            events = stream(self.http, self.job_id, after=self.ids[-1] if self.ids else 0)
            self.read(events)
            events.close()
        self.http.close()

    def read(self, events: Iterator[Told]) -> None:
        for count, event in enumerate(filter(lambda event: event.id is not None, events), 1):
            assert event.id is not None
            self.ids.append(event.id)
            self.is_over = event.type == "video.completed"
            if count >= self.every:
                return
