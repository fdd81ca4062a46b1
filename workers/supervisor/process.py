"""A process told apart from a later one that got the same number."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from workers.contracts.job import Value

LOOK_SECONDS = 0.02


class Process(Value):
    """A process number together with when that process began."""

    pid: int
    began: str
    """As the system tells it; only compared."""
    instance: str = ""
    """Under which name it was started."""

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return began(self.pid) == self.began != ""


def began(pid: int) -> str:
    """When the process began, or "" where there is none (a zombie is none)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything, so count from the last one.
            state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            return "" if state in "ZX" else f"{rest[18]} {_boot()}"
        return ""
    said = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, moment = said.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else moment.strip()


def _boot() -> str:
    """Start times count from the boot, so they repeat after the next one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def stop_all(processes: Iterable[Process], *, patience: float) -> list[Process]:
    """End those that still run: SIGTERM, and SIGKILL for what is there after `patience` seconds. Returns them."""
    running = [process for process in processes if process.alive]
    for process in running:
        _send(process, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(process.alive for process in running) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    for process in running:
        if process.alive:
            _send(process, signal.SIGKILL)
    while any(process.alive for process in running):
        time.sleep(LOOK_SECONDS)
    return running


def _send(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)
