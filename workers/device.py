"""The device thread: the only one that touches engines. It loads them, takes commands between ticks, runs ticks.

Facts go out through a bounded queue, in order, so a device that is faster than disk and Redis waits for them. An error
that escapes the runner is the device's (a lost GPU): the thread ends with it and the process must follow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from queue import Empty, Queue, SimpleQueue

from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import GriditError
from workers.tasks import Engine, Fact, Opening, Task, TaskFailed, TaskFinished, TickRan

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
LOADING_SECONDS = 900.0
"""Budget of loading and warming up; after it the worker counts as stuck."""
OPENING_SECONDS = 300.0
"""Budget of opening, warming up and judging engines that were built beside the work."""
LOOK_SECONDS = 0.25
"""Between two looks at what is built, while there is work."""
BATCHES = 10
"""A tick may take so many times the measured batch time before the worker counts as stuck."""
FIRST_BATCH_SECONDS = 12.0
"""Assumed before any is measured: a first batch may compile, allocate, wait for its turn."""
SHARE = 0.1
"""Of a new measure in the average time of a row."""
DECAY = 0.95
"""Each faster batch lowers the measure so slowly that neither a short stage nor a busy machine passes for a fault."""


class Phase(StrEnum):
    """What the device is at."""

    LOADING = "loading"
    READY = "ready"
    OPENING = "opening"
    """An engine that was built beside the work."""
    FAILED = "failed"


class Why(StrEnum):
    """Reason for taking a job off the device."""

    CANCEL = "cancel"
    DEADLINE = "deadline"
    LOST = "lost"
    GONE = "gone"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Drop:
    """Take a job off."""

    job_id: str
    attempt: int
    why: Why


@dataclass(frozen=True, slots=True)
class Settle:
    """Build nothing beside the work any more."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """It is off; every fact about it came before this."""

    job_id: str
    attempt: int
    why: Why


@dataclass(frozen=True, slots=True)
class Resumed:
    """A claimed job is about to run; what earlier attempts persisted can be published."""

    job_id: str
    attempt: int


Out = Fact | Dropped | Resumed


class Device(threading.Thread):
    """Runs an engine on a thread of its own, from `start` until `close` or its failure."""

    def __init__(self, load: Callable[[], Engine], out: Queue[Out | None], *, lease_seconds: float) -> None:
        """`load` makes the engine, on this thread; facts go to `out`."""
        super().__init__(name="device", daemon=True)
        self._load = load
        self._out = out
        self._lease = lease_seconds
        self._inbox: SimpleQueue[Task | Drop | Settle | None] = SimpleQueue()
        self._attempts: dict[str, int] = {}
        self._batch_seconds = FIRST_BATCH_SECONDS
        self.row_seconds: float | None = None
        self._since = time.monotonic()
        self._busy = True
        self.phase = Phase.LOADING
        self.catalogue: Sequence[CatalogueEntry] = ()
        """What is served; another value whenever it changes."""
        self.claiming = threading.Lock()
        """Held from reading `catalogue` for a claim until `admit`: engines change only between claims."""
        self._looked_at = 0.0
        self._opened: Opening | None = None
        self.progress_at: float | None = None
        self.error: BaseException | None = None

    def admit(self, task: Task) -> None:
        """Hand a task over; any thread."""
        self._inbox.put(task)

    def drop(self, drop: Drop) -> None:
        """Take a job off before the next tick; any thread. `Dropped` follows."""
        self._inbox.put(drop)

    def settle(self) -> None:
        """Build nothing beside the work any more; any thread."""
        self._inbox.put(Settle())

    def close(self) -> None:
        """End the thread after the running tick; any thread."""
        self._inbox.put(None)

    def moves(self) -> bool:
        """Whether it is idle, or a tick ended not too long ago."""
        if self.phase is Phase.FAILED:
            return False
        budget = {Phase.LOADING: LOADING_SECONDS, Phase.OPENING: OPENING_SECONDS}
        limit = budget.get(self.phase, max(self._lease, BATCHES * self._batch_seconds))
        return not self._busy or time.monotonic() - self._since < limit

    def run(self) -> None:
        """The thread."""
        try:
            engine = self._load()
            self.catalogue = tuple(engine.catalogue())
            self.phase = Phase.READY
            self._work(engine)
            engine.close()
        except BaseException as error:  # whatever it was, the worker must know
            self.error = error
            self.phase = Phase.FAILED
            unknown = None if isinstance(error, GriditError) else error  # ours are told by whoever ran the worker
            log.critical("device failed", exc_info=unknown, extra={"action": "device_failed", "error": str(error)})

    def _work(self, engine: Engine) -> None:
        self._busy = False
        while self._take_commands(engine, patience=IDLE_SECONDS) and self._improve(engine):
            if engine.has_work:
                self._mark(busy=True)
                self._tick(engine)

    def _tick(self, engine: Engine) -> None:
        facts = engine.tick()
        self.progress_at = time.time()
        for fact in facts:
            match fact:
                case TickRan():
                    self._batch_seconds = max(fact.seconds, DECAY * self._batch_seconds)
                    self.row_seconds = _averaged(self.row_seconds, fact.seconds / fact.rows)
                case TaskFinished() | TaskFailed():
                    self._attempts.pop(fact.job_id, None)
        self._mark(busy=False)  # waiting for the publisher is not the device's fault
        for fact in facts:
            self._out.put(fact)

    def _improve(self, engine: Engine) -> bool:
        """See to engines that are built beside the work, and change to them between two claims. False: end."""
        if self._opened is None:
            if time.monotonic() - self._looked_at < LOOK_SECONDS:
                return True
            self._looked_at = time.monotonic()
            self._opened = self._open(engine.improved())
            self._note_catalogue(engine)
        if self._opened is None or not self.claiming.acquire(blocking=False):
            return True
        try:
            goes_on = self._take_commands(engine, patience=0.0)  # claimed for the engines that still serve
            if self._opened is not None:  # else told to settle just now
                self._opened.swap()
                self._opened = None
                self._note_catalogue(engine)
            return goes_on
        finally:
            self.claiming.release()

    def _open(self, opening: Opening | None) -> Opening | None:
        if opening is not None:
            self.phase = Phase.OPENING
            self._mark(busy=True)
            opening.open()
            self._mark(busy=False)
            self.phase = Phase.READY
        return opening

    def _note_catalogue(self, engine: Engine) -> None:
        catalogue = tuple(engine.catalogue())
        if _offers(catalogue) != _offers(self.catalogue):
            self.catalogue = catalogue

    def _take_commands(self, engine: Engine, *, patience: float) -> bool:
        """Do all that was asked; with nothing to run, wait for more, `patience` seconds. False: end."""
        while True:
            try:
                command = self._inbox.get(block=patience > 0 and not engine.has_work, timeout=patience)
            except Empty:
                return True
            match command:
                case None:
                    return False
                case Settle():
                    self._opened = None
                    engine.settle()
                case Task(job_id, attempt):
                    self._attempts[job_id] = attempt
                    engine.admit(command)
                case Drop(job_id, attempt, why):
                    if self._attempts.get(job_id) == attempt:  # else a newer attempt is here already
                        del self._attempts[job_id]
                        engine.drop(job_id)
                    self._out.put(Dropped(job_id, attempt, why))

    def _mark(self, *, busy: bool) -> None:
        self._since = time.monotonic()
        self._busy = busy


def _offers(catalogue: Sequence[CatalogueEntry]) -> list[CatalogueEntry]:
    """A catalogue without the times that its entries hold."""
    return [entry.evolve(seen_at=0.0) for entry in catalogue]


def _averaged(known: float | None, new: float) -> float:
    return new if known is None else (1 - SHARE) * known + SHARE * new
