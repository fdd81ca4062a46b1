"""The promise of the README, on the bundle that ships: `gridit demo`, and frames that depend on nothing but the job."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from service.client import Client, Video
from tests.integration.up_fixtures import ONE_THREAD, up
from workers.contracts.event import EventType
from workers.contracts.job import Stage

FRAMES = 64
SHORT: dict[str, Any] = {"num_frames": 17, "num_inference_steps": 2}
"""Two grids and two units of refinement."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `gridit demo` leaves."""
    out = tmp_path_factory.mktemp("out") / "demo"
    command = [sys.executable, "-m", "service.cli", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=590, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return out


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_the_job_is_completed_and_every_frame_refined(demo: Path) -> None:
    job = json.loads((demo / "job.json").read_text())
    assert job["status"] == "completed"
    assert job["frames"] == {"total": FRAMES, "coarse_done": FRAMES, "refined_done": FRAMES}
    assert job["model"] == "demo"


def test_the_frames_are_as_many_different_pictures_of_one_size(demo: Path) -> None:
    files = sorted((demo / "frames").iterdir())
    assert [file.name for file in files] == [f"{index:04d}.png" for index in range(FRAMES)]
    pictures = []
    for file in files:
        with Image.open(file) as picture:
            assert (picture.format, picture.size) == ("PNG", (128, 128))
            pictures.append(picture.tobytes())
    assert len(set(pictures)) == FRAMES


def test_the_video_and_the_gif_have_every_frame(demo: Path) -> None:
    with av.open(str(demo / "video.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == FRAMES
    with Image.open(demo / "sequence.gif") as gif:
        assert (getattr(gif, "n_frames", 1), gif.size) == (FRAMES, (128, 128))
    with Image.open(demo / "contact-sheet.png") as sheet:
        assert sheet.width > 8 * 128
        assert sheet.height > 8 * 128


def test_events_hold_each_frame_once_and_in_order_and_one_end(demo: Path) -> None:
    events = events_of(demo)
    stored = [event for event in events if event["id"]]
    assert [event["id"] for event in stored] == list(range(1, len(stored) + 1))
    frames = [(e["data"]["stage"], e["data"]["index"]) for e in events if e["type"] == EventType.FRAME]
    for stage in Stage:
        assert [index for name, index in frames if name == stage] == list(range(FRAMES))
    assert all(frames.index(("coarse", index)) < frames.index(("refined", index)) for index in range(FRAMES))
    count = Counter(event["type"] for event in events)
    assert count[EventType.COARSE_READY] == 1
    assert [kind for kind in count if EventType(kind).terminal] == [EventType.COMPLETED]
    assert count[EventType.COMPLETED] == 1
    assert events[-1]["type"] == EventType.COMPLETED


def test_kept_frames_are_those_that_were_announced(demo: Path) -> None:
    for event in events_of(demo):
        if event["type"] == EventType.FRAME and event["data"]["stage"] == Stage.REFINED:
            kept = (demo / "frames" / f"{event['data']['index']:04d}.png").read_bytes()
            assert hashlib.sha256(kept).hexdigest() == event["data"]["sha256"]


def digests(client: Client, video: Video) -> dict[tuple[Stage, int], str]:
    """Every frame of both stages, and the video, once the job is done."""
    assert list(client.events(video.id))[-1].type is EventType.COMPLETED
    frames = {
        (stage, index): hashlib.sha256(client.frame(video.id, index, stage=stage)).hexdigest()
        for stage in Stage
        for index in range(video.num_frames)
    }
    return {**frames, (Stage.REFINED, -1): hashlib.sha256(client.content(video.id)).hexdigest()}


def test_frames_are_the_same_bytes_alone_beside_another_job_and_on_the_next_start(tmp_path: Path) -> None:
    with up(tmp_path, **ONE_THREAD) as first, first.client() as client:
        alone = digests(client, client.submit(prompt="sky", seed=11, **SHORT))
        other = client.submit(prompt="lava", seed=12, **SHORT)
        again = client.submit(prompt="sky", seed=11, **SHORT)
        beside = digests(client, again)
        assert digests(client, other) != alone
        spans = [(v["started_at"], v["completed_at"]) for v in (client.get(x.id).model_dump() for x in (other, again))]
        assert spans[1][0] <= spans[0][1], "they never ran at the same time"
        assert first.stop() == 0
    assert beside == alone
    with up(tmp_path, **ONE_THREAD) as second, second.client() as client:
        assert digests(client, client.submit(prompt="sky", seed=11, **SHORT)) == alone
