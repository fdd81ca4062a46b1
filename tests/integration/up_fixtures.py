"""`gridit up` for tests: the real command in a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.client import Client
from workers.supervisor.directory import Record, read_record

ONE_THREAD = {"GRIDIT_THREADS": "1"}
"""Enough for tiny nets; two would wait for each other on a busy machine."""
COMMAND = (sys.executable, "-m", "service.cli", "up", "--port", "0")


def wait_for(condition: Callable[[], object], *, seconds: float = 10.0) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Up:
    """A running `gridit up`."""

    process: subprocess.Popen[str]
    data_dir: Path
    said: list[str] = field(default_factory=list)
    url: str = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        """The next line that matches; fails with all it said if it ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"gridit up ended before it said {pattern!r}: {self.said}")

    def client(self) -> Client:
        return Client(self.url)

    def record(self) -> Record:
        record = read_record(self.data_dir)
        assert record is not None
        return record

    def pid(self, name: str) -> int:
        """Of the child of that name."""
        return next(process.pid for process in self.record().children if process.instance.startswith(f"{name}-"))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """The exit status after this signal."""
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=60)[0].splitlines()
        return self.process.returncode


@contextlib.contextmanager
def up(data_dir: Path, *options: str, **environment: str) -> Iterator[Up]:
    """Started and ready; killed at the end if it still runs."""
    with subprocess.Popen(
        [*COMMAND, "--data-dir", str(data_dir), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        running = Up(process, data_dir)
        try:
            running.url = running.read_until(r"ready in [\d.]+ s at (\S+)")[1]
            running.read_until("Ctrl-C stops")
            yield running
        finally:
            process.kill()
    assert wait_for(lambda: not processes_of(data_dir)), f"left running: {processes_of(data_dir)}"


def refused(data_dir: Path, *options: str, **environment: str) -> str:
    """What a start that fails says."""
    done = subprocess.run(
        [*COMMAND, "--data-dir", str(data_dir), *options],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def processes_of(data_dir: Path) -> dict[int, str]:
    """Every process that was told of this directory, in its arguments or its environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            if os.fsencode(data_dir) in told:
                found[int(entry.name)] = told.partition(b"\0\0")[0].replace(b"\0", b" ").decode(errors="replace")
    return found
