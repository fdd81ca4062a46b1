"""A real Redis-compatible server on a socket of its own, with its append-only file on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

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
