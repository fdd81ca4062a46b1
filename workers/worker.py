"""A worker: claims jobs into its slots, runs them together on one device, and gives back what it cannot finish.

The main thread decides: it claims, takes jobs off the device, sweeps for others, drains. The device, the publisher, the
heartbeat and RQ's listener have threads of their own and speak to it through one mailbox. It never forks.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue

from workers.contracts import keys
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import GriditError, StoreUnavailable
from workers.contracts.settings import Settings
from workers.device import Device, Drop, Out, Phase, Why
from workers.facts import Announced, WorkerReady
from workers.heartbeat import Heartbeat
from workers.holdings import Holdings
from workers.intake import Intake
from workers.mailbox import Hung, Mailbox, Message, StopJob, TakeOff, Terminate, Wake
from workers.metrics import report
from workers.patience import Patience
from workers.publisher import Publisher
from workers.queue.accounts import Accounts
from workers.queue.connect import AWAY, connect, connect_bytes, full_is_away, persist
from workers.queue.ledger import Ledger
from workers.queue.release import release
from workers.queue.rqworker import GriditWorker
from workers.storage import open_store
from workers.sweeper import Sweeper
from workers.tasks import Engine
from workers.tidying import Cleaner, Tidier

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Claims are tried so often even if no message comes."""
BACKLOG = 32
"""Facts that may wait for disk and Redis before the device waits too."""
CLOSE_SECONDS = 10.0
"""How long threads may take to end after the drain limit."""
SAME_SIGNAL_SECONDS = 1.0
"""Two requests to stop this close are one: a terminal's and the supervisor's."""
FAULT = 70
"""Exit status after a fault of the device or of this program (EX_SOFTWARE)."""


class Worker:
    """One worker process; `run` is its life."""

    def __init__(self, settings: Settings, load: Callable[[], Engine], *, name: str) -> None:
        """`load` makes the engine, on the device thread. Raises StoreError if the store cannot be written."""
        self.name = name
        self._settings = settings
        self._store = open_store(settings)
        self._mailbox = Mailbox()
        self._holdings = Holdings()
        self._out: Queue[Out | None] = Queue(BACKLOG)
        self._redis = connect(settings.redis_url)
        self._ledger = self._new_ledger()
        self._device = Device(load, self._out, lease_seconds=settings.lease_seconds)
        accounts = Accounts(connect(settings.redis_url, timeout=5.0))
        tidier = Tidier(self._store, accounts)
        self._cleaner = Cleaner(self._ledger, tidier, store=self._store, accounts=accounts)
        self._patience = Patience(settings.store_patience_seconds)
        self._publisher = Publisher(
            self._ledger,
            self._store,
            holdings=self._holdings,
            inbox=self._out,
            mailbox=self._mailbox,
            tidier=tidier,
            patience=self._patience,
        )
        self._intake = Intake(
            self._ledger,
            self._store,
            holdings=self._holdings,
            device=self._device,
            out=self._out,
            slots=settings.slots,
        )
        self._stop_asked_at: float | None = None
        self._hurried = False
        self._hung = False
        self._announced: tuple[CatalogueEntry, ...] = ()

    def stop(self) -> None:
        """Ask it to stop, as SIGTERM does; any thread."""
        self._mailbox.put(Terminate())

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT stop it; a second one hurries it. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def run(self) -> int:
        """Work until stopped; the exit status. Raises the GriditError for which its engines could not be loaded."""
        rq_worker = persist(self._register, action="register")
        heartbeat = self._new_heartbeat(rq_worker)
        sweeper = self._new_sweeper(heartbeat)
        for thread in (self._device, self._publisher, heartbeat, self._cleaner):
            thread.start()
        try:
            self._load(heartbeat)
            self._serve(sweeper, heartbeat)
            heartbeat.draining = True
            heartbeat.hurry()
            self._drain()
        finally:
            self._cleaner.close()
            heartbeat.close()
            heartbeat.join(CLOSE_SECONDS)
            self._unregister(rq_worker)
        if isinstance(self._device.error, GriditError):
            raise self._device.error
        return 0 if self._healthy else FAULT

    @property
    def stuck(self) -> bool:
        """Whether a thread did not end with `run` (Redis is away, an engine hangs); the process must end without it."""
        return self._publisher.is_alive() or self._device.is_alive()

    @property
    def _healthy(self) -> bool:
        return self._device.phase is not Phase.FAILED and not self._publisher.failed and not self._hung

    @property
    def _stopping(self) -> bool:
        return self._stop_asked_at is not None or not self._healthy

    def _load(self, heartbeat: Heartbeat) -> None:
        """Until the engines are loaded; then the catalogue and the state say so."""
        began = time.monotonic()
        while self._device.phase is Phase.LOADING and not self._stopping:
            self._listen(0.05)
        if self._device.phase is Phase.READY:
            report(WorkerReady(self._announce(), time.monotonic() - began))
            heartbeat.hurry()

    def _announce(self) -> tuple[CatalogueEntry, ...]:
        """Write down what is served."""
        self._announced = tuple(self._device.catalogue)
        persist(lambda: self._ledger.announce(self._announced), action="announce")
        return self._announced

    def _serve(self, sweeper: Sweeper, heartbeat: Heartbeat) -> None:
        while not self._stopping:
            if self._device.catalogue != self._announced:
                report(Announced(self._announce()))
                heartbeat.hurry()
            self._fill()
            sweeper.sweep(time.monotonic())
            self._listen(POLL_SECONDS)

    def _fill(self) -> None:
        """Take jobs in hand, unless the store could not be reached a moment ago."""
        if self._patience.is_tried(time.monotonic()):
            return
        try:
            self._intake.fill()
        except StoreUnavailable as error:
            self._patience.failed(time.monotonic())
            log.warning("the store is away", extra={"action": "claim", "error": error.message})

    def _drain(self) -> None:
        """Go on with the jobs in hand, then give back the rest; after a fault they are given up as lost."""
        self._device.settle()
        until = time.monotonic() + self._settings.drain_seconds
        while self._healthy and len(self._holdings) and not self._hurried and time.monotonic() < until:
            self._listen(0.1)
        if self._healthy:
            for holding in reversed(self._holdings.all()):  # each goes to the front: the first claimed last
                self._take_off(holding.job.id, holding.job.attempt, Why.DRAIN)
        self._device.close()
        if self._device.phase is not Phase.LOADING and not self._hung:  # which nothing can interrupt
            self._device.join(CLOSE_SECONDS)
        with suppress(Full):
            self._out.put(None, timeout=CLOSE_SECONDS)
        self._publisher.join(CLOSE_SECONDS)

    def _listen(self, timeout: float) -> None:
        """Wait for a message, then take all that are there."""
        try:
            self._hear(self._mailbox.get(timeout=timeout))
            while True:
                self._hear(self._mailbox.get_nowait())
        except Empty:
            return

    def _hear(self, message: Message) -> None:
        match message:
            case Wake():
                pass
            case Hung():
                self._hung = True
            case StopJob(job_id):
                for holding in self._holdings.all():
                    if holding.job.id == job_id:
                        self._take_off(job_id, holding.job.attempt, Why.CANCEL)
            case TakeOff(job_id, attempt, why):
                self._take_off(job_id, attempt, why)
            case Terminate():
                now = time.monotonic()
                if self._stop_asked_at is None:
                    self._stop_asked_at = now
                    log.info("stopping", extra={"action": "stopping", "jobs": len(self._holdings)})
                elif now - self._stop_asked_at > SAME_SIGNAL_SECONDS:
                    self._hurried = True

    def _take_off(self, job_id: str, attempt: int, why: Why) -> None:
        holding = self._holdings.get(job_id, attempt)
        if holding is not None:
            if holding.leaving is not None:
                return
            holding.leaving = why
        self._device.drop(Drop(job_id, attempt, why))

    def _register(self) -> GriditWorker:
        rq_worker = GriditWorker(self.name, connection=connect_bytes(self._settings.redis_url), mailbox=self._mailbox)
        rq_worker.enter()
        return rq_worker

    def _unregister(self, rq_worker: GriditWorker) -> None:
        """With jobs still in hand (a fault, threads that did not end) they are given up as a dead worker's are."""
        try:
            with full_is_away():
                if len(self._holdings):
                    release(self._redis, self.name, keep_seconds=self._settings.artifact_seconds)
                self._redis.delete(keys.worker(self.name))
                rq_worker.leave()
        except AWAY as error:
            log.warning("redis is away", extra={"action": "unregister", "error": str(error)})

    def _new_ledger(self) -> Ledger:
        settings = self._settings
        return Ledger(
            connect(settings.redis_url, timeout=5.0),
            self.name,
            lease_seconds=settings.lease_seconds,
            keep_seconds=settings.artifact_seconds,
        )

    def _new_heartbeat(self, rq_worker: GriditWorker) -> Heartbeat:
        settings = self._settings
        return Heartbeat(
            self._new_ledger(),
            rq_worker,
            device=self._device,
            holdings=self._holdings,
            mailbox=self._mailbox,
            beat_seconds=settings.beat_seconds,
            lease_seconds=settings.lease_seconds,
            slots=settings.slots,
        )

    def _new_sweeper(self, heartbeat: Heartbeat) -> Sweeper:
        settings = self._settings
        return Sweeper(
            self._ledger,
            self._cleaner,
            contact=heartbeat.contact,
            lease_seconds=settings.lease_seconds,
            beat_seconds=settings.beat_seconds,
            store_bytes=settings.store_bytes,
        )
