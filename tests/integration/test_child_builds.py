"""Builds beside a worker's work as real processes: whose turn it is, how often one is tried, and what a worker tells.

What a child runs here is a shell that plays the compiler; the real one is `test_engine_builds`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache
from tests.installed import need_openvino
from tests.integration.following import until
from tests.tiny import tiny_bundle
from workers.builds import Build, Ended, Wish
from workers.childbuilds import ChildBuilder
from workers.queue.client import JobQueue
from workers.supervisor.process import Process, began

FAILS = """echo '{"failed": "no luck"}'; exit 1"""
WORKS = """echo '{"done": true}'"""
LASTS = "exec sleep 1000"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def wish(bundle: Bundle) -> Wish:
    return Wish("tiny", bundle.path, "openvino", "fp32")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def builder(cache: EngineCache, script: str, *, tries: int = 2) -> ChildBuilder:
    return ChildBuilder(tries=tries, cache=cache, program=("sh", "-c", script))


def over(build: Build | None) -> Ended:
    assert build is not None
    deadline = time.monotonic() + 20
    while (ended := build.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return ended


def test_failures_count_over_restarts(cache: EngineCache, wish: Wish) -> None:
    for _ in range(2):
        again = builder(cache, FAILS)
        assert again.refuses(wish) == ""
        assert over(again.start(wish)) == Ended("no luck")
    assert builder(cache, FAILS).refuses(wish) == "failed 2 times, not tried again; the last time: no luck"
    assert builder(cache, FAILS, tries=3).refuses(wish) == ""


def test_one_build_at_a_time_on_a_machine(cache: EngineCache, wish: Wish) -> None:
    mine, others = builder(cache, LASTS), builder(cache, WORKS)
    running = mine.start(wish)
    assert running is not None
    assert others.start(wish) is None
    running.stop()
    running.stop()
    assert over(others.start(wish)) == Ended()
    assert over(others.start(wish)) == Ended(), "the turn is given back at the end"
    assert others.refuses(wish) == "", "stopping is no failure"


def work(name: str, *, redis_url: str, directory: Path, bundle: Path, script: str) -> None:
    """A worker process whose compiler is a shell."""
    from workers import loading
    from workers.contracts import logs, settings
    from workers.worker import Worker

    chosen = settings.load(redis_url=redis_url, data_dir=directory / "data", log_level="critical")
    logs.configure(level=chosen.log_level, format=chosen.log_format)
    builds = builder(EngineCache(directory / "engines"), script)
    load = partial(loading.load, [bundle], engine="openvino", device="cpu", threads=1, builder=builds)
    worker = Worker(chosen, load, name=name)
    worker.handle_signals()
    os._exit(worker.run())


@pytest.fixture
def start(redis_url: str, tmp_path: Path, bundle: Bundle) -> Iterator[Callable[[str], ForkServerProcess]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers.loading", "workers.worker", "workers.childbuilds"])
    processes = []

    def started(script: str) -> ForkServerProcess:
        told = {"redis_url": redis_url, "directory": tmp_path, "bundle": bundle.path, "script": script}
        process = context.Process(target=work, args=("w",), kwargs=told)
        process.start()
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.join()


async def child(noted: Path) -> Process:
    """The process that noted its number there."""

    pid = int(await until(partial(asyncio.to_thread, _read, noted), bool))
    return Process(pid=pid, began=began(pid))


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


@pytest.mark.anyio
async def test_a_worker_that_stops_ends_its_build(
    queue: JobQueue, start: Callable[[str], ForkServerProcess], tmp_path: Path
) -> None:
    need_openvino()
    noted = tmp_path / "noted"
    worker = start(f"echo $$ > {noted}; {LASTS}")
    building = await child(noted)
    assert building.alive
    (state,) = await until(queue.workers, lambda states: any(state.phase == "ready" for state in states))
    for info in state.engines.values():
        assert (info.engine, info.failed) == ("torch", "")
        assert info.building.startswith("openvino")
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
    assert not building.alive


@pytest.mark.anyio
async def test_a_build_that_fails_is_told_by_the_worker_that_goes_on(
    queue: JobQueue, start: Callable[[str], ForkServerProcess], tmp_path: Path
) -> None:
    need_openvino()
    start(FAILS)
    states = await until(queue.workers, lambda found: any(i.failed for s in found for i in s.engines.values()))
    for info in states[0].engines.values():
        assert info.engine == "torch"
        assert "openvino fp32: no luck" in info.failed
    catalogue = await until(queue.catalogue, lambda found: any(i.failed for i in found["tiny"].engines.values()))
    assert "no luck" in catalogue["tiny"].engines["coarse"].failed
