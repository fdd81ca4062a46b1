"""Which server is embedded, and that what is launched keeps its data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from workers import embedded
from workers.embedded import ServerNotFound


def program(path: Path, said: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{said}'\n")
    path.chmod(0o755)
    return path


@contextmanager
def running(launch: embedded.Launch) -> Iterator[redis.Redis]:
    environment = {**os.environ, **launch.environment}
    process = subprocess.Popen(launch.command, env=environment, stdout=subprocess.DEVNULL)
    try:
        embedded.wait_until_ready(launch.endpoint.url, timeout=10)
        with redis.Redis.from_url(launch.endpoint.url, decode_responses=True) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def test_a_server_on_the_path_is_preferred_if_it_is_new_enough(tmp_path: Path) -> None:
    program(tmp_path / "redis-server", "Redis server v=6.0.16 sha=0:0 malloc=jemalloc bits=64 build=1")
    wanted = program(tmp_path / "valkey-server", "Valkey server v=8.1.0 sha=0:0 malloc=libc bits=64 build=1")
    found = embedded.find(configured=None, search_path=str(tmp_path))
    assert (found.path, found.name, found.version) == (wanted, "Valkey", (8, 1, 0))


def test_without_one_on_the_path_a_package_brings_it(tmp_path: Path) -> None:
    found = embedded.find(configured=None, search_path=str(tmp_path))
    assert found.version >= (6, 2, 0)
    assert "site-packages" in str(found.path)


@pytest.mark.parametrize("said", ["Redis server v=6.0.16 sha=0:0", "GNU bash, version 5.2"])
def test_a_configured_program_that_does_not_serve_is_an_error_that_names_it(tmp_path: Path, said: str) -> None:
    path = program(tmp_path / "mine", said)
    with pytest.raises(ServerNotFound, match=str(path)):
        embedded.find(configured=path, search_path=os.environ["PATH"])


def test_a_configured_program_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServerNotFound, match="absent"):
        embedded.find(configured=tmp_path / "absent", search_path="")


def test_data_outlives_a_killed_server_also_under_an_awkward_name(tmp_path: Path) -> None:
    directory = tmp_path / 'a "b" %41#'
    launch = embedded.prepare(directory)
    assert launch.endpoint.url.startswith("unix://")
    with running(launch) as client:
        client.xadd("events", {"type": "frame"}, id="1-0")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("save") == {"save": ""}
    with running(launch) as client:
        assert client.xrange("events") == [("1-0", {"type": "frame"})]


def test_a_socket_path_that_is_too_long_gives_a_loopback_port_behind_a_password(tmp_path: Path) -> None:
    launch = embedded.prepare(tmp_path / ("long" * 30))
    assert launch.endpoint.url.startswith("redis://:")
    with running(launch) as client:
        assert client.ping()
        port = client.connection_pool.connection_kwargs["port"]
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_server_that_does_not_run_is_not_ready(tmp_path: Path) -> None:
    launch = embedded.prepare(tmp_path)
    with pytest.raises(embedded.ServerNotStarted):
        embedded.wait_until_ready(launch.endpoint.url, timeout=0.05)
