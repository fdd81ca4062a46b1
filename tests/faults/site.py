"""A service on four hosts: Redis behind a password, the API, and two workers around the twin, on a store they share.

The store is a directory that every host sees, as with NFS, or an S3 server on a host of its own. The test is the
client: it reaches the API by the host's front, which stays when the API is cut off from the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import BotoCoreError
from redis import Redis

from service.client import Client
from tests.faults.network import Host, Network
from workers import embedded
from workers.contracts.settings import Settings
from workers.storage import Store, open_store

PASSWORD = "between-hosts"
PORT, API_PORT, S3_PORT = 6379, 8000, 5000
BUCKET = "bucket"
PATIENCE = 60.0
TICK_SECONDS = 0.05
WORKERS = ("worker-1", "worker-2")


class Kept(Enum):
    """Where the files are."""

    DIRECTORY = "directory"
    S3 = "s3"


@dataclass(frozen=True)
class Site:
    """The hosts, and what the test sees of them."""

    redis_host: Host
    api: Host
    workers: dict[str, Host]
    directory: Path
    store: Store

    @property
    def redis_url(self) -> str:
        return _redis_url(self.redis_host)

    @property
    def url(self) -> str:
        return f"http://{self.api.front}:{API_PORT}"

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
def site(directory: Path, *, kept: Kept = Kept.DIRECTORY) -> Iterator[Site]:
    """Up and ready; gone at the end."""
    with Network() as network, pytest.MonkeyPatch.context() as environment:
        redis_host, api = network.host("redis"), network.host("api")
        network.lay_front(api)
        workers = {name: network.host(name) for name in WORKERS}
        _start_redis(redis_host, directory / "redis")
        if kept is Kept.S3:
            _start_s3(network.host("s3"), directory, environment)
        settings = _settings(redis_host, directory, kept)
        made = Site(redis_host, api, workers, directory, open_store(settings))
        _start_service(made, settings)
        wait_for(lambda: _ready(made))
        yield made


def _settings(redis_host: Host, directory: Path, kept: Kept) -> Settings:
    store = f"s3://{BUCKET}/site" if kept is Kept.S3 else None
    return Settings(redis_url=_redis_url(redis_host), data_dir=directory / "data", store=store)


def _start_service(made: Site, settings: Settings) -> None:
    told = {
        "GRIDIT_REDIS_URL": settings.redis_url,
        "GRIDIT_DATA_DIR": str(settings.data_dir),
        "GRIDIT_LOG_FORMAT": "json",
        **({} if settings.store is None else {"GRIDIT_STORE": settings.store}),
    }
    for name, host in made.workers.items():
        command = [sys.executable, "-m", "tests.twins", "--name", name, "--tick", str(TICK_SECONDS)]
        command += ["--noted", str(made.directory / "noted")]
        host.start(command, log=made.directory / f"{name}.log", environment=told)
    serve = [sys.executable, "-m", "service.cli", "serve", "--host", "0.0.0.0", "--port", str(API_PORT)]
    made.api.start(serve, log=made.directory / "api.log", environment=told)


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
    embedded.wait_until_ready(_redis_url(host), timeout=20)


def _redis_url(host: Host) -> str:
    return f"redis://:{PASSWORD}@{host.address}:{PORT}/0"


def _start_s3(host: Host, directory: Path, environment: pytest.MonkeyPatch) -> None:
    """moto's server with an empty bucket; the environment, which every program inherits, says where it is."""
    server = [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(S3_PORT)]
    host.start(server, log=directory / "s3.log", environment={})
    endpoint = f"http://{host.address}:{S3_PORT}"
    for name, value in {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}.items():
        environment.setenv(f"AWS_{name}", value)
    environment.setenv("AWS_REGION", "us-east-1")
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint)
    wait_for(lambda: _bucket(client))
    client.close()


def _bucket(client: Any) -> bool:
    try:
        client.create_bucket(Bucket=BUCKET)
    except BotoCoreError:
        return False
    return True


def _ready(made: Site) -> bool:
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.get(f"{made.url}/readyz", timeout=5)
        if answer.status_code == 200:
            return [worker["phase"] for worker in answer.json()["workers"]] == ["ready"] * len(WORKERS)
    return False


def worker_of(redis: Redis, job_id: str) -> str:
    """Which worker has the job in hand, or had it last."""
    return str(redis.hget(f"rq:job:{job_id}", "worker_name") or "")
