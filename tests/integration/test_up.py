"""`gridit up` with the real API, workers and server: what it survives, what it refuses, and that it leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, Event
from tests.integration.up_fixtures import ONE_THREAD, Up, processes_of, refused, up, wait_for
from tests.tiny import tiny_bundle
from workers.contracts.event import EventType
from workers.contracts.job import JobStatus

FRAMES = 128
LONG: dict[str, Any] = {"prompt": "sky", "num_frames": FRAMES, "num_inference_steps": 30, "seed": 3}
"""A job of the tiny bundle that takes a few seconds."""

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings for a tiny bundle."""
    return {"GRIDIT_BUNDLES": str(tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path), **ONE_THREAD}


@pytest.fixture(scope="module")
def shared(tiny: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that all tests use which leave it running."""
    with up(tmp_path_factory.mktemp("shared"), **tiny) as running:
        yield running


def frames_of(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.data["stage"], event.data["index"]) for event in events if event.type is EventType.FRAME]


def check_whole(events: list[Event], count: int) -> None:
    """Every frame once and in order, each refined one after its coarse one, one end."""
    stored = [event for event in events if event.id]
    assert [event.id for event in stored] == list(range(1, len(stored) + 1))
    frames = frames_of(events)
    for stage in ("coarse", "refined"):
        assert [index for kind, index in frames if kind == stage] == list(range(count))
    assert all(frames.index(("coarse", index)) < frames.index(("refined", index)) for index in range(count))
    assert [event.type for event in events if event.type.terminal] == [EventType.COMPLETED]
    assert events[-1].type is EventType.COMPLETED


def until_refined(client: Client, video_id: str) -> None:
    """Return while the job is in the middle of its work."""
    for event in client.events(video_id):
        assert not event.type.terminal, "too fast for this test"
        if event.type is EventType.FRAME and event.data["stage"] == "coarse":
            return


def test_it_tells_where_it_is_and_serves_a_job(shared: Up) -> None:
    assert any("tiny/coarse" in line and "torch" in line for line in shared.said)
    assert shared.record().pid == shared.process.pid
    with shared.client() as client:
        video = client.submit(prompt="lava", num_frames=20, seed=1)
        check_whole(list(client.events(video.id)), 20)
        assert client.content(video.id)[4:8] == b"ftyp"
        assert client.frame(video.id, 19).startswith(b"\x89PNG")


def test_a_second_one_on_the_same_directory_is_refused_by_name(shared: Up) -> None:
    said = refused(shared.data_dir)
    assert f"is in use by gridit up, process {shared.process.pid} serving {shared.url}" in said
    assert shared.process.poll() is None


def test_a_port_in_use_is_an_error_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path / "data", "--port", str(port))
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert "--port" in said
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["up.lock"]


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(tmp_path / "file" / "data")


def test_a_worker_that_cannot_start_ends_it_with_the_reason(tmp_path: Path) -> None:
    said = refused(tmp_path, GRIDIT_BUNDLES=str(tmp_path / "absent"))
    assert said.startswith("error: worker-1 ended")
    assert f"bundle {tmp_path / 'absent'}: bundle.json: found no such file" in said
    assert len(said.splitlines()) == 1
    assert not processes_of(tmp_path)


def test_a_killed_worker_is_replaced_and_its_job_goes_on(shared: Up) -> None:
    with shared.client() as client:
        video = client.submit(**LONG)
        until_refined(client, video.id)
        worker = shared.pid("worker-1")
        os.kill(worker, signal.SIGKILL)
        shared.read_until(rf"worker-1 ended.*process {worker}, status -9")
        shared.read_until(r"1 job of worker-1-\S+ back in the queue")
        shared.read_until(r"worker-1 runs again")
        check_whole(list(client.events(video.id)), FRAMES)
        assert (client.get(video.id).model_extra or {})["attempt"] == 2
    assert shared.pid("worker-1") != worker


@pytest.mark.parametrize("name", ["api", "server"])
def test_a_killed_api_or_server_is_replaced_under_a_running_job(shared: Up, name: str) -> None:
    with shared.client() as client:
        video = client.submit(**LONG)
        events = []
        for event in client.events(video.id):
            events.append(event)
            if len(frames_of(events)) == 20 and event.type is EventType.FRAME:
                os.kill(shared.pid(name), signal.SIGKILL)
        check_whole(events, FRAMES)
    shared.read_until(rf"{name} runs again")


def test_after_a_kill_nothing_is_left_and_the_next_one_takes_over(tiny: dict[str, str], tmp_path: Path) -> None:
    with up(tmp_path, **tiny) as first, first.client() as client:
        video = client.submit(**LONG)
        until_refined(client, video.id)
        first.process.kill()
        start = time.monotonic()
        assert wait_for(lambda: not processes_of(tmp_path), seconds=2.0), processes_of(tmp_path)
        assert time.monotonic() - start < 2.0
    with up(tmp_path, **tiny) as second, second.client() as client:
        check_whole(list(client.events(video.id)), FRAMES)


def test_ctrl_c_or_the_end_of_its_input_stop_all_of_it_and_the_next_one_finds_its_jobs(
    tiny: dict[str, str], tmp_path: Path
) -> None:
    settings = {**tiny, "GRIDIT_DRAIN_SECONDS": "0.2"}
    with up(tmp_path, **settings) as first, first.client() as client:
        done = client.submit(prompt="sky", num_frames=4)
        assert list(client.events(done.id))[-1].type is EventType.COMPLETED
        unfinished = client.submit(**LONG)
        until_refined(client, unfinished.id)
        assert first.stop() == 0
        assert first.said[-1] == "stopped"
        assert not processes_of(tmp_path)
    with up(tmp_path, "--stop-with-stdin", **settings) as second, second.client() as client:
        check_whole(list(client.events(unfinished.id)), FRAMES)
        assert client.get(done.id).status is JobStatus.COMPLETED
        assert client.frame(done.id, 3).startswith(b"\x89PNG")
        assert second.process.stdin is not None
        second.process.stdin.close()
        assert second.process.wait(60) == 0
        assert not processes_of(tmp_path)
