"""A service that goes over to OpenVINO while it serves: what is told, whose bytes a job's are, and no child left over.

The compiler and the engine are the real ones. The oracle is a job alone, on torch or on OpenVINO.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from models import alone
from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache
from models.evaluator import Nets
from models.media import png, to_pixels
from service.client import Client
from tests.installed import need_openvino
from tests.integration.up_fixtures import ONE_THREAD, Up, processes_of, up, wait_for
from tests.tiny import tiny_bundle
from workers.contracts.event import EventType
from workers.contracts.job import Job
from workers.inhand import request_of
from workers.queue.client import JobQueue
from workers.tasks import STAGES

need_openvino()


pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]

LONG: dict[str, Any] = {"prompt": "sky", "num_frames": 256, "num_inference_steps": 20, "seed": 1, "sampler": "euler"}
"""A job of some seconds."""
CHILD = "models.builds.build_child"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "tiny")


@contextlib.contextmanager
def serving(bundle: Bundle, directory: Path) -> Iterator[Up]:
    environment = {
        "GRIDIT_BUNDLES": str(bundle.path),
        "GRIDIT_ENGINE": "openvino",
        "GRIDIT_PRECISION": "fp32",
        "GRIDIT_ENGINE_CACHE": str(directory / "engines"),
    }
    with up(directory / "data", **environment, **ONE_THREAD) as started:
        yield started


def builds(directory: Path) -> set[int]:
    """The processes that compile."""
    return {pid for pid, command in processes_of(directory).items() if CHILD in command}


def engines(started: Up) -> list[dict[str, Any]]:
    """What /readyz tells of its worker's engines; nothing while there is none."""
    workers = httpx.get(f"{started.url}/readyz", timeout=30).json()["workers"]
    return [info for worker in workers for info in worker["engines"].values()]


def served_by(started: Up) -> set[str]:
    return {info["engine"] for info in engines(started)}


async def _record(directory: Path, job_id: str) -> Job:
    queue = JobQueue.connect(f"unix://{quote(str(directory / 'data' / 'server' / 'r.sock'))}")
    try:
        return await queue.get(job_id)
    finally:
        await queue.close()


def record(directory: Path, job_id: str) -> Job:
    return asyncio.run(_record(directory, job_id))


def delivered(client: Client, job_id: str) -> dict[tuple[str, int], str]:
    """The hash of every frame that was published."""
    events = list(client.events(job_id))
    assert events[-1].type is EventType.COMPLETED, events[-1]
    frames = [event.data for event in events if event.type is EventType.FRAME]
    return {(frame["stage"], frame["index"]): frame["sha256"] for frame in frames}


def by_itself(bundle: Bundle, job: Job, nets: Nets) -> dict[tuple[str, int], str]:
    """The same of the job alone."""
    made = {}
    for stage, which, frames in alone.frames(bundle.spec, request_of(job.spec, bundle), nets=nets):
        for index, frame in zip(which, to_pixels(frames, bits=8), strict=True):
            made[STAGES[stage.value].value, index] = hashlib.sha256(png.encode(frame)).hexdigest()
    return made


def test_the_service_goes_over_to_what_was_built_between_two_jobs(bundle: Bundle, tmp_path: Path) -> None:
    with serving(bundle, tmp_path) as started, started.client() as client:
        told = engines(started)
        assert [(info["engine"], info["building"], info["failed"]) for info in told] == [
            ("torch", "openvino fp32", "")
        ] * 2
        (model,) = client.models()
        assert {info["building"] for info in model["engines"].values()} == {"openvino fp32"}
        ids = []
        while served_by(started) == {"torch"}:  # one after another, so that one of them is in hand at the change
            ids.append(client.submit(**LONG).id)
            while not client.get(ids[-1]).status.terminal and served_by(started) == {"torch"}:
                time.sleep(0.1)
        spanning, after = ids[-1], client.submit(**LONG).id
        assert served_by(started) == {"openvino"}
        found = {job_id: delivered(client, job_id) for job_id in (spanning, after)}
        jobs = {job_id: record(tmp_path, job_id) for job_id in found}
        assert wait_for(lambda: "openvino" in str(client.models()[0]["engines"]))
        assert all((info["building"], info["failed"]) == ("", "") for info in engines(started))
        metrics = httpx.get(f"{started.url}/metrics", timeout=30).text
    noted = [jobs[job_id].numerics for job_id in (spanning, after)]
    assert [value.engine for value in noted if value is not None] == ["torch", "openvino"]
    assert 'gridit_engine_build_seconds_count{engine="openvino",outcome="succeeded"} 1.0' in metrics
    assert 'gridit_engine_fallback{model="tiny",stage="coarse"} 0.0' in metrics
    assert found[spanning] == by_itself(bundle, jobs[spanning], alone.evaluators(bundle))
    cache = EngineCache(tmp_path / "engines")
    assert found[after] == by_itself(bundle, jobs[after], alone.evaluators(bundle, engine="openvino", cache=cache))


def test_a_killed_worker_leaves_no_build_and_the_next_one_builds(bundle: Bundle, tmp_path: Path) -> None:
    with serving(bundle, tmp_path) as started:
        assert wait_for(lambda: builds(tmp_path), seconds=30)
        first = builds(tmp_path)
        assert len(first) == 1
        os.kill(started.pid("worker-1"), signal.SIGKILL)
        assert wait_for(lambda: not first & builds(tmp_path))
        assert wait_for(lambda: served_by(started) == {"openvino"}, seconds=120)
        assert not builds(tmp_path)
