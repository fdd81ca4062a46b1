"""One machine under fire: `gridit up` with noting workers, and a table of its processes by name.

Any of "supervisor", "server", "api", "worker-1", ... can be killed (SIGKILL), stopped (SIGSTOP) and let go on, and the
whole be started again on the same directory and port. What is seen of it from outside is HTTP, its Redis and its notes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from service.client import Client
from tests.faults.books import Books
from tests.faults.noting import Notes, Within
from tests.integration.up_fixtures import processes_of, wait_for
from workers import embedded
from workers.supervisor.directory import read_record
from workers.supervisor.process import Process

SUPERVISOR, SERVER, API = "supervisor", "server", "api"
PATIENCE = 60.0
"""Seconds to become ready in; far more than it takes on a machine that does nothing else."""


class Host:
    """`gridit up` on `directory`; `start` it. None of its processes outlives `close`."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 1,
        within: Within = Within.RUNNER,
        tick_seconds: float = 0.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        """`environment` holds GRIDIT_* settings; `within` and `tick_seconds` are those of `noting`."""
        self.data_dir = directory / "d"
        self.notes = Notes(directory / "notes")
        self.workers = tuple(f"worker-{number}" for number in range(1, workers + 1))
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._said = directory / "up.log"
        self._environment = {"GRIDIT_THREADS": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
        self._command = (
            *(sys.executable, "-m", "tests.faults.noting_up"),
            *("--data-dir", str(self.data_dir), "--port", self.url.rpartition(":")[2], "--workers", str(workers)),
            *("--notes", str(self.notes.directory), "--within", within.value, "--tick", str(tick_seconds)),
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that can be hit."""
        return (SUPERVISOR, SERVER, API, *self.workers)

    def start(self) -> float:
        """Start it, again or for the first time; seconds until it is ready."""
        began = time.monotonic()
        with self._said.open("ab") as said:
            said_before = said.tell()
            self._process = subprocess.Popen(
                self._command, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **self._environment}
            )
        while b"ready" not in self._said.read_bytes()[said_before:]:
            assert self._process.poll() is None, self.said
            assert time.monotonic() - began < PATIENCE, self.said
            time.sleep(0.05)
        return time.monotonic() - began

    @property
    def said(self) -> str:
        """All that `gridit up` wrote, of every start."""
        return self._said.read_text()

    def process(self, name: str) -> Process:
        """The running process of that name; waits for it where it is about to be started."""
        if name == SUPERVISOR:
            assert self._process is not None
            return Process(pid=self._process.pid, began="")
        assert wait_for(lambda: self._find(name), seconds=PATIENCE), f"no {name}: {self.said}"
        found = self._find(name)
        assert found is not None
        return found

    def runs(self, name: str) -> bool:
        """Whether there is such a process now; one that is stopped runs as well."""
        return name == SUPERVISOR or self._find(name) is not None

    def kill(self, name: str) -> float:
        """SIGKILL; when (seconds since the epoch)."""
        at = self._send(name, signal.SIGKILL)
        if name == SUPERVISOR and self._process is not None:
            self._process.wait()
        return at

    def stop(self, name: str) -> None:
        """SIGSTOP: it holds its sockets, and does nothing."""
        self._send(name, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self._send(name, signal.SIGCONT)

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stopped within the block."""
        self.stop(name)
        try:
            yield
        finally:
            self.go_on(name)

    def client(self) -> Client:
        return Client(self.url)

    @contextlib.contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """Its Redis, which must be up."""
        url = embedded.endpoint(self.data_dir / SERVER).url
        assert url.startswith("unix:"), f"too long for a socket: {self.data_dir}"
        with redis.Redis.from_url(url, decode_responses=True, protocol=2) as client:
            yield client

    @contextlib.contextmanager
    def books(self) -> Iterator[Books]:
        """What its Redis, which must be up, says."""
        with self.redis() as client:
            yield Books(client)

    def close(self) -> None:
        """Kill all that is left of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for pid in processes_of(self.data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: not processes_of(self.data_dir)), processes_of(self.data_dir)

    def _find(self, name: str) -> Process | None:
        record = read_record(self.data_dir)
        children = record.children if record else ()
        return next((child for child in children if child.instance.startswith(f"{name}-") and child.alive), None)

    def _send(self, name: str, number: signal.Signals) -> float:
        process = self.process(name)
        at = time.time()
        os.kill(process.pid, number)
        return at


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
