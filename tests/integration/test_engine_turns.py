"""Processes that want the same plan at once: one builds it, the others wait and find it; a dead one holds nobody up.

The processes are real, forked for speed; what they build is a few bytes, with the cache's own protocol around it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from models.compiling.engine_cache import EngineCache
from models.compiling.turns import Turn
from tests.unit.test_engine_cache import PLAN, recipe, record

fork = get_context("fork")
PROCESSES = 6


def build(root: Path, log: Path, *, seconds: float) -> None:
    """Look, build, store, as every builder does; each step is a line of the log."""
    cache = EngineCache(root)
    with cache.building(recipe().key) as turn:
        if not turn.mine:
            note(log, "wait")
            turn.wait()
        if list(cache.records()):
            note(log, "hit")
            return
        note(log, "build")
        time.sleep(seconds)
        cache.store(record(), PLAN)
        note(log, "stored")


def note(log: Path, what: str) -> None:
    with log.open("a") as file:
        file.write(f"{what} {os.getpid()}\n")


def noted(log: Path, what: str) -> list[int]:
    """The processes that did it."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(what)]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def started(cache: EngineCache, log: Path, *, seconds: float) -> ForkProcess:
    process = fork.Process(target=build, args=(cache.root, log), kwargs={"seconds": seconds}, daemon=True)
    process.start()
    return process


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def test_of_many_processes_one_builds(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [started(cache, log, seconds=0.3) for _ in range(PROCESSES)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert len(noted(log, "build")) == len(noted(log, "stored")) == 1
    assert len(noted(log, "hit")) == PROCESSES - 1
    (found,) = cache.records()
    assert cache.plan(found) == PLAN


def test_a_killed_builder_gives_way(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = started(cache, log, seconds=60)
    until(lambda: noted(log, "build"))
    second = started(cache, log, seconds=0)
    until(lambda: noted(log, "wait") == [second.pid])
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    second.join()
    assert noted(log, "build") == [first.pid, second.pid]
    assert noted(log, "stored") == [second.pid]
    assert [cache.plan(found) for found in cache.records()] == [PLAN]


def test_different_plans_are_built_side_by_side(cache: EngineCache) -> None:
    with cache.building("a" * 64) as one, cache.building("b" * 64) as other:
        assert one.mine
        assert other.mine


def test_a_turn_ends_with_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broke"), Turn(tmp_path / "lock"):
        raise RuntimeError("broke")
    with Turn(tmp_path / "lock") as again:
        assert again.mine
        again.wait()
        assert again.mine


def test_writing_waits_for_whoever_writes(cache: EngineCache, tmp_path: Path) -> None:
    """As a removal does, so that it takes no plan whose record is about to be written."""
    log = tmp_path / "log"
    with cache.writing():
        process = started(cache, log, seconds=0)
        until(lambda: noted(log, "build"))
        time.sleep(0.3)
        assert not list(cache.root.glob("*.plan"))
    process.join()
    assert noted(log, "stored")
