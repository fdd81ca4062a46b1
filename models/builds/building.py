"""A build in a process of its own: started, asked now and then how it goes, stopped. It runs `builds.build_child`.

A compiler may take minutes and gigabytes, hold Python's lock all the while, or crash; none of that may touch the
process that serves. There is no thread and no waiting here: whoever drives calls `poll` when it suits. Failures are
kept with the engine cache (`compiling.engine_failures`); whether to try again is the caller's question to ask there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from models import bundle
from models.compiling.engine_cache import VARIABLE, EngineCache
from models.compiling.engine_failures import Attempt, Failures
from models.compiling.owned import NotOwn
from models.engine import BUCKETS, Precision
from models.spec import BundleSpec

BUILDER = (sys.executable, "-m", "models.builds.build_child")
"""The program; it is given a `Commission` as its one argument."""
LIMIT_SECONDS = 3600.0
LAST_LINES = 2
"""Lines of what a dead child said last that go into a reason."""
KEPT = 1 << 18
"""Bytes kept of what it says and nobody has read."""


class Commission(BaseModel):
    """What a child is to build: the arguments of `models.builds.compile.compile_bundle`."""

    model_config = ConfigDict(frozen=True)

    bundle: Path
    engine: str
    precision: Precision
    targets: tuple[str, ...]
    buckets: tuple[int, ...]
    cache: Path


class Line(BaseModel):
    """What a child says, one JSON object a line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doing: str = ""
    graph: str = ""
    index: int = 0
    total: int = 0
    done: bool = False
    """All plans are in the cache: the last line of a good end."""
    failed: str | None = None
    """Why it ends: the last line of a bad one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """It works."""

    doing: str
    """Such as "start", "export", "build"; "wait" while another process builds the same."""
    graph: str = ""
    index: int = 0
    """Of the graph, from 1; 0: not told."""
    total: int = 0


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Every plan is in the cache."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """It ended otherwise, and that is on record."""

    reason: str
    count: int
    """How often it has failed by now, with these versions."""
    seconds: float


class Build:
    """One child process. It dies with this one, and with the thread that started it, whatever they die of."""

    def __init__(self, process: subprocess.Popen[bytes], *, record: Failures, attempt: Attempt, limit: float) -> None:
        """`start` makes one."""
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._record, self._attempt, self._limit = process, record, attempt, limit
        self._lines, self._words = _Pipe(process.stdout), _Pipe(process.stderr)
        self._began = time.monotonic()
        self._progress = Progress("start")
        self._last = Line()
        self._end: Succeeded | Failed | None = None
        self._stopped = False

    @classmethod
    def start(
        cls,
        path: Path,
        *,
        engine: str,
        precision: Precision,
        targets: Sequence[str] = ("current",),
        buckets: Sequence[int] = BUCKETS,
        cache: EngineCache | None = None,
        limit: float = LIMIT_SECONDS,
        program: Sequence[str] = BUILDER,
    ) -> Build:
        """Begin to build all nets of the bundle at `path`. `BundleError` if there is none; all else is told by `poll`.

        `limit` is in seconds. `program` is given a `Commission` in JSON and answers with `Line`s.
        """
        cache = cache or EngineCache.default()
        commission = Commission(
            bundle=path.absolute(),
            engine=engine,
            precision=precision,
            targets=tuple(targets),
            buckets=tuple(buckets),
            cache=cache.root.absolute(),
        )
        attempt = attempt_of(bundle.read_spec(path), engine=engine, precision=precision)
        return cls(_spawn(program, commission), record=Failures(cache.root), attempt=attempt, limit=limit)

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._process.pid

    def poll(self) -> Progress | Succeeded | Failed:
        """How it goes; never waits. Once it has ended, always the same."""
        if self._end is None:
            status = self._process.poll()  # before its lines are read: those of a dead child are complete
            self._listen()
            if status is not None:
                self._end = self._ended(status)
            elif self._seconds > self._limit:
                self._end = self._failed(f"{self._whereabouts} after {self._limit:g} s, the most it may take")
        return self._end or self._progress

    def stop(self) -> None:
        """End it now, if it still runs; what it has stored stays, and nothing is held against it. Repeat-safe."""
        if self._stopped:
            return
        self._stopped = True
        with contextlib.suppress(ProcessLookupError, PermissionError):  # what it has started itself, too
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def _whereabouts(self) -> str:
        now = self._progress
        return f"stopped at {now.doing} of {now.graph}" if now.graph else f"stopped at {now.doing}"

    def _listen(self) -> None:
        self._words.read()
        for line in self._lines.take_lines():
            self._last = Line.model_validate_json(line)
            if self._last.doing:
                self._progress = Progress(self._last.doing, self._last.graph, self._last.index, self._last.total)

    def _ended(self, status: int) -> Succeeded | Failed:
        if status == 0 and self._last.done:
            self._record.forget(self._attempt)
            self.stop()
            return Succeeded(self._seconds)
        return self._failed(self._last.failed or self._cause(status))

    def _failed(self, reason: str) -> Failed:
        self.stop()
        with contextlib.suppress(NotOwn, OSError):  # a cache that cannot be written to fails the build already
            return Failed(reason, self._record.record(self._attempt, reason=reason).count, self._seconds)
        return Failed(reason, 1, self._seconds)

    def _cause(self, status: int) -> str:
        said = f": {words}" if (words := self._words.last_words()) else ""
        if status == -signal.SIGKILL:
            return f"{self._whereabouts}: it was killed, as the kernel does when memory runs out{said}"
        if status < 0:
            return f"{self._whereabouts}: it crashed with {signal.Signals(-status).name}{said}"
        return f"{self._whereabouts}: it ended with status {status}{said}"


class _Pipe:
    """What has come through a child's pipe."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor, self._text = stream.fileno(), b""
        os.set_blocking(self._descriptor, False)

    def read(self) -> None:
        """All there is now; of much text the end is kept."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._descriptor, 1 << 16):
                self._text = (self._text + part)[-KEPT:]

    def take_lines(self) -> list[bytes]:
        """The whole lines that have come, once."""
        self.read()
        *lines, self._text = self._text.split(b"\n")
        return lines

    def last_words(self) -> str:
        """The end of the text, in one line."""
        lines = self._text.decode(errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-LAST_LINES:])


def attempt_of(spec: BundleSpec, *, engine: str, precision: Precision) -> Attempt:
    """Under what a failure of this build is kept."""
    return Attempt(bundle=bundle.hash_of(spec), name=spec.name, engine=engine, precision=precision)


def forgive(path: Path, *, engine: str, precision: Precision) -> None:
    """Hold no earlier failure against a build of the bundle at `path`: somebody asks for it. `BundleError`."""
    attempt = attempt_of(bundle.read_spec(path), engine=engine, precision=precision)
    Failures(EngineCache.default().root).forget(attempt)


def _spawn(program: Sequence[str], commission: Commission) -> subprocess.Popen[bytes]:
    """Its standard input is never written to: it ends when this process does, and tells the child so."""
    return subprocess.Popen(
        [*program, commission.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, VARIABLE: str(commission.cache)},
        start_new_session=True,  # Ctrl-C in the terminal is for the process that serves
    )
