"""What a worker compiles beside its work: which engines are wanted, one build at a time, and what came of each.

A build itself is a child process (`builds.building`); what has failed before, other processes included, the engine
cache remembers. Nothing here opens an engine: a build that has succeeded is told, and that is all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workers.tasks import BuildOutcome, EngineBuildEnded, EngineBuildStarted, EngineFact

AGAIN_SECONDS = 30.0
"""Between a failure and the next try."""
TURN_SECONDS = 2.0
"""Between two looks whether another process of this machine still builds."""


@dataclass(frozen=True, slots=True)
class Wish:
    """An engine for a bundle that could be faster than the one that serves."""

    bundle: str
    path: Path
    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True, slots=True)
class Ended:
    """A build is over; with a reason if it has failed."""

    reason: str = ""


class Build(Protocol):
    """One that runs."""

    def poll(self) -> Ended | None:
        """Whether it is over; returns at once."""

    def stop(self) -> None:
        """End it; repeat-safe."""


class Builder(Protocol):
    """Begins builds."""

    def refuses(self, wish: Wish) -> str:
        """Why this is not to be begun again: how often it has failed, and of what; else ""."""

    def start(self, wish: Wish) -> Build | None:
        """Begin; None while another process of this machine builds."""


class Builds:
    """Wishes in order, the one that is being built, and the failures. Not thread safe."""

    def __init__(self, builder: Builder, *, tries: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`tries`: failures after which a wish is given up."""
        self._builder, self._tries, self._clock = builder, tries, clock
        self._waiting: dict[Wish, float] = {}  # with the time from which on it may begin
        self._failures: dict[Wish, int] = {}
        self._known: set[Wish] = set()
        self._current: tuple[Wish, Build, float] | None = None
        self.failed: dict[Wish, str] = {}
        """Why what was wanted is not there."""

    def want(self, wishes: Iterable[Wish]) -> None:
        """Build these too, unless they were wished for before."""
        for wish in wishes:
            if wish not in self._known:
                self._known.add(wish)
                self._waiting[wish] = 0.0

    def is_pending(self, wish: Wish) -> bool:
        """Whether it is being built or is going to be."""
        return wish in self._waiting or (self._current is not None and self._current[0] == wish)

    def look(self) -> tuple[list[EngineFact], Wish | None]:
        """What has happened, and the wish that has come true, if one has; cheap."""
        if self._current is None:
            return self._begin(), None
        wish, build, began = self._current
        ended = build.poll()
        if ended is None:
            return [], None
        self._current = None
        outcome = BuildOutcome.FAILED if ended.reason else BuildOutcome.SUCCEEDED
        fact = _ended(wish, outcome, self._clock() - began, ended.reason)
        if ended.reason:
            self._note_failure(wish, ended.reason)
            return [fact], None
        return [fact], wish

    def stop(self) -> list[EngineFact]:
        """End what runs, and forget what waits; repeat-safe."""
        self._waiting.clear()
        if self._current is None:
            return []
        wish, build, began = self._current
        self._current = None
        build.stop()
        return [_ended(wish, BuildOutcome.STOPPED, self._clock() - began, "")]

    def _begin(self) -> list[EngineFact]:
        now = self._clock()
        wish = next((wish for wish, since in self._waiting.items() if since <= now), None)
        if wish is None:
            return []
        if why := self._builder.refuses(wish):
            del self._waiting[wish]
            self.failed[wish] = why
            return []
        try:
            build = self._builder.start(wish)
        except Exception as error:  # noqa: BLE001 - whatever keeps a build from beginning, the work goes on
            del self._waiting[wish]
            self._note_failure(wish, str(error))
            return [_ended(wish, BuildOutcome.FAILED, 0.0, str(error))]
        if build is None:
            self._waiting[wish] = now + TURN_SECONDS
            return []
        del self._waiting[wish]
        self.failed.pop(wish, None)
        self._current = (wish, build, now)
        return [EngineBuildStarted(wish.bundle, wish.engine, wish.precision)]

    def _note_failure(self, wish: Wish, reason: str) -> None:
        self._failures[wish] = self._failures.get(wish, 0) + 1
        self.failed[wish] = reason
        if self._failures[wish] < self._tries:
            self._waiting[wish] = self._clock() + AGAIN_SECONDS


def _ended(wish: Wish, outcome: BuildOutcome, seconds: float, reason: str) -> EngineBuildEnded:
    return EngineBuildEnded(wish.bundle, wish.engine, wish.precision, outcome, seconds, reason)
