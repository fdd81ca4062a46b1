"""A real Redis-compatible server on a socket of its own, with its append-only file on, and real worker processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import redis

from tests import twins
from workers import embedded
from workers.queue.client import JobQueue


class Server:
    """The server process; `kill` is kill -9, `start` brings it back with its data."""

    def __init__(self, directory: Path) -> None:
        self._launch = embedded.prepare(directory)
        self.url = self._launch.endpoint.url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | self._launch.environment
        self._process = subprocess.Popen(self._launch.command, env=environment, stdout=subprocess.DEVNULL)
        embedded.wait_until_ready(self.url, timeout=20)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it alone."""
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    server = Server(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(shared_server: Server) -> str:
    """An empty database."""
    with redis.Redis.from_url(shared_server.url) as client:
        client.flushall()
    return shared_server.url


@pytest.fixture
def database(redis_url: str) -> Iterator[redis.Redis]:
    """A synchronous client with decoded strings."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[JobQueue]:
    """The client half of the queue."""
    queue = JobQueue.connect(redis_url)
    yield queue
    await queue.close()


class Workers:
    """Worker processes around the twin, on one store; none outlives the test."""

    def __init__(self, redis_url: str, directory: Path) -> None:
        self.redis_url = redis_url
        self.data_dir = directory / "data"
        self._noted = directory / "noted"
        self._processes: list[ForkServerProcess] = []
        self._context = multiprocessing.get_context("forkserver")
        # Heavy imports once: a process of ours is quick to start and still no copy of this one.
        self._context.set_forkserver_preload(["tests.twins", "workers.worker", "models.media.png", "models.media.mp4"])

    def start(self, name: str, *, tick_seconds: float = 0.02, **settings: object) -> ForkServerProcess:
        """A worker process; `settings` are fields of Settings."""
        more = {"log_level": "error", "redis_url": self.redis_url, "data_dir": self.data_dir} | settings
        arguments = {"tick_seconds": tick_seconds, "noted": self._noted} | more
        process = self._context.Process(target=twins.work, args=(name,), kwargs=arguments)
        process.start()
        self._processes.append(process)
        return process

    def units(self, job_id: str, *, attempt: int | None = None) -> list[str]:
        """Units of a job that were computed, by whichever attempt, in order."""
        lines = self._noted.read_text().splitlines() if self._noted.exists() else []
        noted = [line.split() for line in lines]
        return [unit for job, by, unit in noted if job == job_id and attempt in (None, int(by))]

    def terminate_all(self) -> None:
        """SIGTERM, and wait."""
        for process in self._processes:
            process.terminate()
            process.join(20)

    def kill_all(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


@pytest.fixture
def workers(redis_url: str, tmp_path: Path) -> Iterator[Workers]:
    """Starts worker processes."""
    workers = Workers(redis_url, tmp_path)
    yield workers
    workers.kill_all()
