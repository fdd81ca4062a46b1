"""What any live worker does for all: lost jobs are queued again, expired and left-over files given to the cleaner."""

from __future__ import annotations

import logging

from workers.facts import Redelivered
from workers.heartbeat import Contact
from workers.metrics import report
from workers.queue.connect import AWAY
from workers.queue.ledger import Judge, Ledger
from workers.tidying import Cleaner

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps when it is due."""

    def __init__(
        self,
        ledger: Ledger,
        cleaner: Cleaner,
        *,
        contact: Contact,
        lease_seconds: float,
        beat_seconds: float,
        store_bytes: int | None = None,
    ) -> None:
        """`contact` is this worker's own: after an outage every lease has ended, and its worker may well live."""
        self._ledger = ledger
        self._cleaner = cleaner
        self._store_bytes = store_bytes
        self._contact = contact
        self._needed = lease_seconds + 2 * beat_seconds
        self._every = lease_seconds / 4
        self._due = 0.0

    def sweep(self, now: float) -> None:
        """Sweep if it is time; with Redis away, nothing."""
        if now < self._due:
            return
        self._due = now + self._every
        try:
            sweep = self._ledger.sweep(judge_leases=self._judge(now), store_bytes=self._store_bytes)
            for job_id, became in sweep.swept.items():
                report(Redelivered(job_id, became))
            self._cleaner.take(sweep)
        except AWAY as error:
            log.warning("redis is away", extra={"action": "sweep", "error": str(error)})

    def _judge(self, now: float) -> Judge:
        if self._contact.steady(now) < self._needed or self._ledger.uptime() < self._needed:
            return Judge.NO
        return Judge.YES
