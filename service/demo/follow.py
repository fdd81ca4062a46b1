"""Follows a job and keeps what it makes: each event as a line, each frame as it is published."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.client import Client, Unexpected, Video
from service.demo.tally import Tally
from workers.contracts.event import EventType
from workers.contracts.job import Stage

EVENTS, JOB, FRAMES = "events.jsonl", "job.json", "frames"


@dataclass
class Kept:
    """Frames in order, as PNG."""

    frames: dict[Stage, list[bytes]] = field(default_factory=lambda: {stage: [] for stage in Stage})


def stages_of(video: Video) -> tuple[Stage, ...]:
    """The stages that the job runs, in order."""
    last = Stage((video.model_extra or {}).get("stages", Stage.REFINED))
    return (Stage.COARSE,) if last is Stage.COARSE else (Stage.COARSE, Stage.REFINED)


def follow(client: Client, video: Video, *, since: float) -> Iterator[Tally]:
    """How far the job is, after each event; `since` is when it was submitted, by the monotonic clock."""
    tally = Tally(video.frames.total, stages_of(video))
    for event in client.events(video.id):
        tally = tally.after(event, seconds=time.monotonic() - since)
        yield tally


def keep(client: Client, video: Video, kept: Kept, *, folder: Path, since: float) -> Iterator[Tally]:
    """The same, writing `events.jsonl` and the last stage's `frames/0000.png`, ... into `folder` on the way."""
    tally = Tally(video.frames.total, stages_of(video))
    (folder / FRAMES).mkdir()
    with (folder / EVENTS).open("w", encoding="utf-8") as log:
        for event in client.events(video.id):
            tally = tally.after(event, seconds=time.monotonic() - since)
            log.write(json.dumps({"id": event.id, "type": event.type.value, "data": event.data}) + "\n")
            if event.type is EventType.FRAME:
                stage, index = Stage(event.data["stage"]), int(event.data["index"])
                picture = _fetch(client, video.id, index, stage=stage, sha256=str(event.data["sha256"]))
                kept.frames[stage].append(picture)
                if stage is tally.stages[-1]:
                    (folder / FRAMES / f"{index:04d}.png").write_bytes(picture)
            yield tally


def _fetch(client: Client, video_id: str, index: int, *, stage: Stage, sha256: str) -> bytes:
    picture = client.frame(video_id, index, stage=stage)
    if hashlib.sha256(picture).hexdigest() != sha256:
        raise Unexpected(f"{stage.value} frame {index} of {video_id} is not the one that its event announced")
    return picture
