"""Children: started on a leash, reaped, and started again with a growing delay when they die.

`Children.tick(now)` does what is due and tells what happened; whoever drives it decides what that means. It keeps no
thread and installs no handler: the driver calls it when a child may have died, and at `next_due`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workers.supervisor import leash
from workers.supervisor.process import Process, began

DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the first, second, ... start after a death; the last one repeats."""
STEADY_SECONDS = 20.0
"""A child that lived so long has its deaths forgotten."""
LOOK_SECONDS = 0.02
LOG_TAIL = 15


@dataclass(frozen=True)
class ChildSpec:
    """What to run and keep running. `{instance}` in an argument becomes the name of that one start."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's own."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What it gets when the supervisor dies."""
    patience: float = 5.0
    """Seconds from SIGTERM to SIGKILL when it is stopped."""


@dataclass(frozen=True)
class Started:
    """A child runs; `again` after a death."""

    name: str
    instance: str
    pid: int
    again: bool


@dataclass(frozen=True)
class Died:
    """A child ended without having been asked to; it starts again in `restart_in` seconds."""

    name: str
    instance: str
    pid: int
    status: int
    """Exit code, or minus the signal."""
    restart_in: float


Fact = Started | Died


@dataclass
class _Child:
    spec: ChildSpec
    deaths: int = 0
    due: float = 0.0
    started: float = 0.0
    instance: str = ""
    mark: str = ""
    popen: subprocess.Popen[bytes] | None = None


class Children:
    """The children of this process, in the order of their start."""

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}

    def add(self, spec: ChildSpec) -> None:
        """Have it started at the next tick. A log of an earlier run is kept beside the new one."""
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        if spec.log.exists():
            spec.log.replace(spec.log.with_suffix(".1.log"))
        self._children[spec.name] = _Child(spec)

    def tick(self, *, now: float) -> list[Fact]:
        """Reap the dead, start what is due."""
        return [*self.reap(now=now), *self.start(now=now)]

    def reap(self, *, now: float) -> list[Died]:
        """Bury the dead."""
        dead = [
            child for child in self._children.values() if child.popen is not None and child.popen.poll() is not None
        ]
        return [_bury(child, now=now) for child in dead]

    def start(self, *, now: float) -> list[Started]:
        """Start what is due."""
        due = [child for child in self._children.values() if child.popen is None and child.due <= now]
        return [_start(child, now=now) for child in due]

    def next_due(self) -> float | None:
        """When the next start is due; None: none waits."""
        return min((child.due for child in self._children.values() if child.popen is None), default=None)

    def processes(self) -> Iterator[Process]:
        """Those that were started and not yet reaped."""
        for child in self._children.values():
            if child.popen is not None:
                yield Process(pid=child.popen.pid, began=child.mark, instance=child.instance)

    def instance(self, name: str) -> str:
        """Name of the child's present (or last) start."""
        return self._children[name].instance

    def stop(self, names: Iterable[str]) -> Generator[None, None, None]:
        """End these and forget them: SIGTERM, SIGKILL when patience ends. Yields while it waits; closed early, it
        waits no longer."""
        leaving = [self._children[name] for name in names if name in self._children]
        deadlines = [time.monotonic() + child.spec.patience for child in leaving]
        try:
            for child in leaving:
                _signal(child, signal.SIGTERM)
            while any(
                _runs(child) and time.monotonic() < until for child, until in zip(leaving, deadlines, strict=True)
            ):
                yield
        finally:
            for child in leaving:
                _kill(child)
                del self._children[child.spec.name]

    def kill(self) -> None:
        """End every child at once and wait for it; for a way out that cannot wait."""
        for child in self._children.values():
            _kill(child)
        self._children.clear()


def log_tail(path: Path, *, lines: int = LOG_TAIL) -> str:
    """The last lines a child wrote."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""


def _start(child: _Child, *, now: float) -> Started:
    spec = child.spec
    child.instance = f"{spec.name}-{os.getpid()}-{secrets.token_hex(3)}"
    with spec.log.open("ab") as log:
        child.popen = subprocess.Popen(
            _leashed(spec, child.instance),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **spec.environment},
            # A session of its own: Ctrl-C in the terminal is for the supervisor, which stops the rest in order.
            start_new_session=True,
        )
    child.mark = began(child.popen.pid)
    child.started = now
    return Started(spec.name, child.instance, child.popen.pid, again=child.deaths > 0)


def _leashed(spec: ChildSpec, instance: str) -> list[str]:
    mode = "exec" if sys.platform == "linux" else "watch"
    keeper = [sys.executable, "-I", "-S", leash.__file__, mode, str(os.getpid()), str(int(spec.orphan_signal))]
    return keeper + [part.replace("{instance}", instance) for part in spec.command]


def _bury(child: _Child, *, now: float) -> Died:
    assert child.popen is not None
    if now - child.started > STEADY_SECONDS:
        child.deaths = 0
    delay = DELAYS[min(child.deaths, len(DELAYS) - 1)]
    died = Died(child.spec.name, child.instance, child.popen.pid, child.popen.returncode, restart_in=delay)
    child.deaths, child.due, child.popen = child.deaths + 1, now + delay, None
    return died


def _runs(child: _Child) -> bool:
    return child.popen is not None and child.popen.poll() is None


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.popen is not None:
        with contextlib.suppress(ProcessLookupError):
            child.popen.send_signal(number)


def _kill(child: _Child) -> None:
    """The child, if it still runs, and whatever it has started itself and left."""
    if child.popen is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.popen.pid, signal.SIGKILL)
        child.popen.wait()
