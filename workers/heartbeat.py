"""The heartbeat thread: renews the leases while the device moves, and hears what became of the jobs in hand.

A device that stands still is given up: the worker is told and ends. Should native code keep even this thread from
running, a timer outside of Python ends the process.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.contracts.catalogue import CatalogueEntry, EngineInfo, WorkerState
from workers.device import Device, Phase, Why
from workers.facts import Beaten
from workers.holdings import Holding, Holdings
from workers.mailbox import Hung, Mailbox, TakeOff
from workers.metrics import report
from workers.queue.connect import AWAY
from workers.queue.ledger import Ledger, Verdict
from workers.queue.rqworker import GriditWorker

log = logging.getLogger(__name__)

SILENCE_SECONDS = 30.0
"""Least time without any sign of this thread after which the process is ended."""


@dataclass(slots=True)
class Stillness:
    """For how long looks, each soon after the one before, have found the device still; a process that was itself
    stopped for a while has not looked."""

    longest_gap: float
    since: float | None = None
    last: float = field(default=float("-inf"))

    def note(self, now: float, *, moves: bool) -> float:
        """A look; seconds of stillness until now."""
        if moves:
            self.since = None
        elif self.since is None or now - self.last > self.longest_gap:
            self.since = now
        self.last = now
        return 0.0 if self.since is None else now - self.since


@dataclass(slots=True)
class Contact:
    """Since when beats have come through without a gap; a gap, not an error, tells that Redis was away."""

    longest_gap: float
    since: float = field(default=float("inf"))
    last: float = field(default=float("-inf"))

    def note(self, now: float) -> None:
        """A beat came through."""
        if now - self.last > self.longest_gap:
            self.since = now
        self.last = now

    def steady(self, now: float) -> float:
        """Seconds without a gap until now."""
        return 0.0 if now - self.last > self.longest_gap else now - self.since


class Heartbeat(threading.Thread):
    """Beats until `close`."""

    def __init__(
        self,
        ledger: Ledger,
        rq_worker: GriditWorker,
        *,
        device: Device,
        holdings: Holdings,
        mailbox: Mailbox,
        beat_seconds: float,
        lease_seconds: float,
        slots: int,
    ) -> None:
        """`ledger` is on a connection of its own, so that nothing else delays a beat."""
        super().__init__(name="heartbeat", daemon=True)
        self._ledger = ledger
        self._rq = rq_worker
        self._device = device
        self._holdings = holdings
        self._mailbox = mailbox
        self._beat_seconds = beat_seconds
        self._slots = slots
        self._started_at = time.time()
        self._closed = threading.Event()
        self._soon = threading.Event()
        self._patience = lease_seconds
        self._still = Stillness(longest_gap=2.5 * beat_seconds)
        self._silence = max(SILENCE_SECONDS, 4 * lease_seconds)
        self.draining = False
        self.contact = Contact(longest_gap=max(2.5 * beat_seconds, lease_seconds / 2))

    def run(self) -> None:
        """The thread."""
        while not self._closed.is_set():
            self._arm()
            moves = self._device.moves()
            if moves:
                self._beat()
            self._watch(moves=moves)
            self._soon.wait(self._beat_seconds)
            self._soon.clear()
        faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        """Loading and opening may rightly keep every other thread waiting for long."""
        if self._device.phase is Phase.READY:
            faulthandler.dump_traceback_later(self._silence, exit=True)
        elif self._device.phase is Phase.OPENING:
            faulthandler.cancel_dump_traceback_later()

    def _watch(self, *, moves: bool) -> None:
        first = self._still.since is None
        still = self._still.note(time.monotonic(), moves=moves)
        if not moves and first and self._device.phase is not Phase.FAILED:  # which was told already
            log.error("no heartbeat: the device is stuck", extra={"action": "stuck"})
        if still > self._patience:
            self._mailbox.put(Hung())

    def hurry(self) -> None:
        """Beat now: the state has changed."""
        self._soon.set()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._soon.set()

    def _beat(self) -> None:
        holdings = self._holdings.all()
        try:
            known, verdicts = self._ledger.beat(self._state(holdings), [(h.job.id, h.job.attempt) for h in holdings])
            self.contact.note(time.monotonic())
            if not known:
                self._rq.enter_again()
        except AWAY as error:
            level = logging.WARNING if self.contact.steady(time.monotonic()) else logging.DEBUG  # once is enough
            log.log(level, "redis is away", extra={"action": "beat", "error": str(error)})
            return
        for holding, verdict in zip(holdings, verdicts, strict=True):
            if verdict is not Verdict.OK:
                self._mailbox.put(TakeOff(holding.job.id, holding.job.attempt, Why(verdict.value)))
        report(Beaten(time.time(), self._device.progress_at))

    def _state(self, holdings: Sequence[Holding]) -> WorkerState:
        told = self._device.phase if self._device.phase in (Phase.READY, Phase.OPENING) else Phase.LOADING
        phase = "draining" if self.draining else told.value
        catalogue = self._device.catalogue
        return WorkerState(
            name=self._rq.name,
            phase=phase,
            pid=os.getpid(),
            host=socket.gethostname(),
            slots=self._slots,
            running=tuple(holding.job.id for holding in holdings),
            started_at=self._started_at,
            heartbeat_at=time.time(),
            progress_at=self._device.progress_at,
            models=tuple(entry.name for entry in catalogue),
            hashes={entry.name: entry.hash for entry in catalogue},
            row_seconds=self._device.row_seconds,
            engines=engines(catalogue),
            device=", ".join(dict.fromkeys(info.device for info in engines(catalogue).values())),
        )


def engines(catalogue: Sequence[CatalogueEntry]) -> dict[str, EngineInfo]:
    """By "<bundle>/<net>"."""
    return {f"{entry.name}/{net}": info for entry in catalogue for net, info in entry.engines.items()}
