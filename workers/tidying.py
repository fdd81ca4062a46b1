"""The files that nobody needs any more: of jobs that have ended, that are gone, or that were never queued.

One law: an ended job has the files that its record names and no other, and what has no record has none. Everything here
may be done twice, by two at once, and while files still come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Full, Queue

from workers import results
from workers.contracts import keys
from workers.contracts.errors import StorageFull, StoreError, StoreUnavailable
from workers.queue.accounts import Accounts, Standing
from workers.queue.connect import AWAY
from workers.queue.ledger import Ledger, Sweep
from workers.storage import Store

log = logging.getLogger(__name__)

ORPHANS_EVERY = 3600
"""Seconds between two looks for orphans, by any worker."""
ORPHANS_AFTER = 300.0
"""Seconds of a worker's life before its first: a short one has better to do."""
GRACE = 3600.0
"""Seconds: a younger file may be that of a job that is being submitted now."""
OWNER = "owner"
"""Path of the file that says whose queue's store this is."""
RECORDS = {"jobs": keys.job, "files": keys.file}
"""By folder: the key of the record that what lies in it belongs to."""


class Tidier:
    """Deletes by the records. Raises StoreError, or one of `connect.AWAY`."""

    def __init__(self, store: Store, accounts: Accounts) -> None:
        self._store = store
        self._accounts = accounts

    def tidy(self, job_id: str) -> None:
        """Delete what the job does not name: all if it is gone, nothing while it may go on."""
        account = self._accounts.of(job_id)
        match account.standing:
            case Standing.GONE:
                self._store.delete_tree(results.tree(job_id))
            case Standing.ENDED:
                self._store.delete_tree(results.raw_tree(job_id))
                found = [found.path for found in self._store.files(results.tree(job_id))]
                self._store.delete([path for path in found if path not in account.named])
                self._accounts.tidied(job_id)

    def orphans(self, now: float) -> Iterator[str]:
        """Delete files without a record, a folder at a time; yields what was found. `now` is seconds since the epoch.

        A file written for a job that was never queued (its API process died in between) is one.
        """
        self._claim_store()
        for folder, record in RECORDS.items():
            for name in self._store.folders(folder):
                old = [found.path for found in self._store.files(f"{folder}/{name}") if found.modified_at < now - GRACE]
                if old and self._accounts.are_known([record(name)]) == [False]:
                    self._store.delete(old)
                    yield f"{folder}/{name}"

    def _claim_store(self) -> None:
        """Raises StoreError if it is another queue's: nothing in it is known here, and all would pass for orphans."""
        try:
            self._store.put(OWNER, self._accounts.owner().encode(), media_type="text/plain")
        except (StorageFull, StoreUnavailable):
            raise
        except StoreError as error:
            raise StoreError(
                f"the file {OWNER!r} in the store names other data of a queue than these, so orphans are left alone; "
                "give each queue a store of its own, or delete that file if the other one is no more"
            ) from error


class Cleaner(threading.Thread):
    """Does what sweeps have found, off the worker's main thread: a store may take its time, and its errors too."""

    def __init__(self, ledger: Ledger, tidier: Tidier, *, store: Store, accounts: Accounts) -> None:
        super().__init__(name="cleaner", daemon=True)
        self._ledger = ledger
        self._tidier = tidier
        self._store = store
        self._accounts = accounts
        self._inbox: Queue[Sweep | None] = Queue(1)
        self._look_at = time.monotonic() + ORPHANS_AFTER

    def take(self, sweep: Sweep) -> None:
        """Clean up after a sweep, soon; what there is no time for is found by the next one."""
        with suppress(Full):
            self._inbox.put_nowait(sweep)

    def close(self) -> None:
        """End the thread after what it is at."""
        with suppress(Full):
            self._inbox.put_nowait(None)

    def run(self) -> None:
        """The thread."""
        while (sweep := self._inbox.get()) is not None:
            try:
                for job_id in sweep.expired:
                    self._try(partial(self._expire, job_id))
                for job_id in sweep.littered:
                    self._try(partial(self._tidier.tidy, job_id))
                self._try(self._look_for_orphans)
            except (StoreUnavailable, *AWAY) as error:
                log.warning("nothing can be deleted now", extra={"action": "clean", "error": str(error)})

    def _try(self, step: Callable[[], None]) -> None:
        """What goes wrong with one must not keep the others; it is found again by the next sweep."""
        try:
            step()
        except StoreUnavailable:
            raise
        except StoreError as error:
            log.warning("files left behind", extra={"action": "files_left", "error": error.message})

    def _expire(self, job_id: str) -> None:
        self._store.delete_tree(results.tree(job_id))  # before the record, which says that there is something to delete
        self._ledger.purge(job_id)

    def _look_for_orphans(self) -> None:
        if time.monotonic() < self._look_at or not self._accounts.take_turn(seconds=ORPHANS_EVERY):
            return
        self._look_at = time.monotonic() + ORPHANS_EVERY
        for path in self._tidier.orphans(time.time()):
            log.warning("orphan deleted", extra={"action": "orphan", "path": path})
