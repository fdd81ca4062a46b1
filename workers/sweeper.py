"""What any live worker does for all: lost jobs are queued again, expired and left-over files deleted."""

from __future__ import annotations

import logging

from workers import results
from workers.contracts.errors import StoreError
from workers.facts import Redelivered
from workers.heartbeat import Contact
from workers.metrics import report
from workers.queue.connect import AWAY
from workers.queue.ledger import Judge, Ledger
from workers.storage import Store

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps when it is due."""

    def __init__(
        self, ledger: Ledger, store: Store, *, contact: Contact, lease_seconds: float, beat_seconds: float
    ) -> None:
        """`contact` is this worker's own: after an outage every lease has ended, and its worker may well live."""
        self._ledger = ledger
        self._store = store
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
            sweep = self._ledger.sweep(judge_leases=self._judge(now))
            for job_id, became in sweep.swept.items():
                report(Redelivered(job_id, became))
            for job_id in sweep.expired:
                self._delete(results.tree(job_id))
                self._ledger.purge(job_id)
            for job_id in sweep.littered:
                self._delete(results.raw_tree(job_id))
                self._ledger.tidied(job_id)
        except AWAY as error:
            log.warning("redis is away", extra={"action": "sweep", "error": str(error)})

    def _judge(self, now: float) -> Judge:
        if self._contact.steady(now) < self._needed or self._ledger.uptime() < self._needed:
            return Judge.NO
        return Judge.YES

    def _delete(self, prefix: str) -> None:
        try:
            self._store.delete_tree(prefix)
        except StoreError as error:
            log.warning("files left behind", extra={"action": "files_left", "error": error.message})
