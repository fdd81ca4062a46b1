"""A service on four hosts: Redis behind a password, the API, and two workers around the twin, on a store they share.

The store is a directory that every host sees, as with NFS, or whatever URL is given. The test is the client: it reaches
the API by the host's front, which stays when the API is cut off from the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from service.client import Client
from tests.faults.network import Host, Network
from workers import embedded

PASSWORD = "between-hosts"
PORT, API_PORT = 6379, 8000
PATIENCE = 60.0
TICK_SECONDS = 0.05
WORKERS = ("worker-1", "worker-2")


@dataclass(frozen=True)
class Site:
    """The hosts, and what the test sees of them."""

    redis_host: Host
    api: Host
    workers: dict[str, Host]
    directory: Path

    @property
    def redis_url(self) -> str:
        return f"redis://:{PASSWORD}@{self.redis_host.address}:{PORT}/0"

    @property
    def url(self) -> str:
        return f"http://{self.api.front}:{API_PORT}"

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def client(self) -> Client:
        return Client(self.url)

    def units(self, job_id: str, attempt: int) -> set[str]:
        """Units of a job that this attempt computed."""
        noted = [line.split() for line in (self.directory / "noted").read_text().splitlines()]
        return {unit for job, by, unit in noted if job == job_id and int(by) == attempt}

    def said(self, worker: str, action: str) -> list[dict[str, Any]]:
        """Lines of a worker's log about this."""
        lines = (self.directory / f"{worker}.log").read_text().splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in told if line.get("action") == action]


@contextlib.contextmanager
def site(directory: Path, *, store: str | None = None) -> Iterator[Site]:
    """Up and ready; gone at the end. `store`: a URL instead of the shared directory."""
    with Network() as network:
        redis_host, api = network.host("redis"), network.host("api")
        network.lay_front(api)
        workers = {name: network.host(name) for name in WORKERS}
        made = Site(redis_host, api, workers, directory)
        _start_redis(redis_host, directory / "redis")
        told = {
            "GRIDIT_REDIS_URL": made.redis_url,
            "GRIDIT_DATA_DIR": str(made.data_dir),
            "GRIDIT_LOG_FORMAT": "json",
            **({} if store is None else {"GRIDIT_STORE": store}),
        }
        for name, host in workers.items():
            command = [sys.executable, "-m", "tests.twins", "--name", name, "--tick", str(TICK_SECONDS)]
            command += ["--noted", str(directory / "noted")]
            host.start(command, log=directory / f"{name}.log", environment=told)
        serve = [sys.executable, "-m", "service.cli", "serve", "--host", "0.0.0.0", "--port", str(API_PORT)]
        api.start(serve, log=directory / "api.log", environment=told)
        wait_for(lambda: _ready(made))
        yield made


def wait_for(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Return once it holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def _start_redis(host: Host, directory: Path) -> None:
    directory.mkdir(parents=True)
    binary = embedded.find(configured=None, search_path=os.environ["PATH"])
    configuration = directory / "server.conf"
    options = (("bind", "0.0.0.0"), ("port", str(PORT)), ("requirepass", PASSWORD), ("dir", str(directory)))
    configuration.write_text(embedded.render((*options, ("appendonly", "yes"), ("save", ""))))
    host.start([str(binary.path), str(configuration)], log=directory / "server.log", environment={})
    url = f"redis://:{PASSWORD}@{host.address}:{PORT}/0"
    embedded.wait_until_ready(url, timeout=20)


def _ready(made: Site) -> bool:
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.get(f"{made.url}/readyz", timeout=5)
        if answer.status_code == 200:
            return [worker["phase"] for worker in answer.json()["workers"]] == ["ready"] * len(WORKERS)
    return False


def worker_of(redis: Redis, job_id: str) -> str:
    """Which worker has the job in hand, or had it last."""
    return str(redis.hget(f"rq:job:{job_id}", "worker_name") or "")
