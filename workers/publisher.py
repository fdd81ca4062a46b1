"""From facts to what users see: units persisted, frames published in order, the video encoded, the job ended.

One thread takes the device's facts as they come; encoding a finished sequence has a second one. Pictures are on disk
before Redis knows of them, so a crash in between costs a file nobody names. Every write is fenced by the attempt and
may be done twice; while Redis is away it is tried until it is back, and while the store has no room it is tried for as
long as patience lasts: the device waits behind the inbox, and jobs that are cancelled, late or drained leave meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue
from typing import TypeVar

from workers import results
from workers.contracts.errors import (
    DeadlineExceeded,
    GriditError,
    JobFailure,
    StorageFull,
    StoreError,
    StoreUnavailable,
)
from workers.contracts.job import JobError, JobStatus, StoredObject, UnitRecord
from workers.device import Dropped, Out, Resumed, Why
from workers.facts import Ended, FramePublished, Left
from workers.holdings import Holding, Holdings
from workers.mailbox import Mailbox, TakeOff, Wake
from workers.metrics import report
from workers.patience import Patience
from workers.queue.connect import persist
from workers.queue.ledger import Ledger, Verdict
from workers.storage import Store
from workers.tasks import Counted, TaskFailed, TaskFinished, UnitFinished
from workers.tidying import Tidier

log = logging.getLogger(__name__)

WRITERS = 8
"""Files written at once."""
AGAIN_SECONDS = 0.5
"""Between two tries to write to a store that has no room."""

T = TypeVar("T")


class Publisher(threading.Thread):
    """Takes facts from `inbox` until it is sent None; then finishes what it has begun."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        *,
        holdings: Holdings,
        inbox: Queue[Out | None],
        mailbox: Mailbox,
        tidier: Tidier,
        patience: Patience,
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self._ledger = ledger
        self._store = store
        self._holdings = holdings
        self._inbox = inbox
        self._mailbox = mailbox
        self._tidier = tidier
        self._patience = patience
        self.failed = False
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="writer")
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    def run(self) -> None:
        """The thread."""
        try:
            self._work()
        except BaseException as error:  # whatever it was, the worker must know
            self.failed = True
            self._mailbox.put(Wake())
            log.critical("publisher failed", exc_info=error, extra={"action": "publisher_failed"})

    def _work(self) -> None:
        results.warm()
        while (fact := self._inbox.get()) is not None:
            if isinstance(fact, Counted):
                report(fact)
            elif (holding := self._holdings.get(fact.job_id, fact.attempt)) is not None:
                with self._blame(holding):
                    self._take(holding, fact)
            elif isinstance(fact, Dropped) and fact.why is Why.GONE:
                self._tidy(fact.job_id)
        self._encoder.shutdown(wait=True)
        self._writers.shutdown()

    def _take(self, holding: Holding, fact: Resumed | UnitFinished | TaskFinished | TaskFailed | Dropped) -> None:
        match fact:
            case Resumed():
                self._publish(holding)
            case UnitFinished():
                record = self._write(holding, lambda: results.keep_unit(self._store, fact, writers=self._writers))
                if record is not None:
                    holding.note(record)
                    self._publish(holding, unit=(fact.unit.key, record), started_at=fact.started_at)
                if holding.job.suspect:
                    self._mailbox.put(Wake())  # it has proved itself, so the next suspect may be claimed
            case TaskFinished():
                holding.encoding = True
                self._encoder.submit(self._complete, holding)
            case TaskFailed():
                self._end(holding, status=JobStatus.FAILED, error=_job_error(fact.error))
            case Dropped() if not holding.encoding:
                self._let_go(holding, fact.why)

    def _publish(
        self, holding: Holding, *, unit: tuple[str, UnitRecord] | None = None, started_at: float = 0.0
    ) -> None:
        frames = holding.publishable()
        if not frames and unit is None:
            return
        result = persist(
            lambda: self._ledger.publish(holding.job, frames=frames, unit=unit, unit_started_at=started_at),
            action="publish",
        )
        if isinstance(result, Verdict):
            self._lose(holding, result)
            return
        for frame, since in holding.published(result):
            since_submission = result.at - holding.job.created_at
            report(FramePublished(holding.job.id, frame.stage, frame.index, since_submission, since))

    def _let_go(self, holding: Holding, why: Why) -> None:
        """The device has dropped it: what becomes of the job depends on why."""
        match why:
            case Why.CANCEL:
                self._end(holding, status=JobStatus.CANCELLED)
            case Why.DEADLINE:
                error = DeadlineExceeded.after(holding.job.spec.deadline_seconds)
                self._end(holding, status=JobStatus.FAILED, error=_job_error(error))
            case Why.DRAIN:
                job = holding.job
                became = persist(lambda: self._ledger.give_back(job.id, job.attempt), action="give_back")
                self._leave(holding, became)
            case Why.LOST | Why.GONE:
                self._leave(holding, why.value)

    def _complete(self, holding: Holding) -> None:
        with self._blame(holding):
            job, began = holding.job, time.monotonic()
            frames, fps = holding.last_stage, job.spec.fps
            video = self._write(holding, lambda: results.keep_video(self._store, job.id, frames, fps=fps))
            seconds = time.monotonic() - began
            if video is not None:
                self._end(holding, status=JobStatus.COMPLETED, artifacts={"video": video}, encode_seconds=seconds)

    def _write(self, holding: Holding, operation: Callable[[], T]) -> T | None:
        """What it returns once the store takes it; None if the job has left meanwhile. Raises when patience is over."""
        while True:
            try:
                result = operation()
            except (StorageFull, StoreUnavailable) as error:
                if not self._patience.is_tried(time.monotonic()):
                    log.warning("the store has no room", extra={"action": "store_wait", "error": error.message})
                self._patience.failed(time.monotonic())
                if self._patience.is_over(time.monotonic(), held_since=holding.since):
                    raise self._patience.given_up(error) from error
            else:
                self._patience.relieved()
                return result
            time.sleep(AGAIN_SECONDS)
            self._let_go_meanwhile(holding)
            if self._holdings.get(holding.job.id, holding.job.attempt) is not holding:
                return None

    def _let_go_meanwhile(self, waiting: Holding) -> None:
        """The facts of jobs that are to leave are stuck in the inbox, so they leave without: each by its own thread."""
        leaving = [waiting] if waiting.encoding else [each for each in self._holdings.all() if not each.encoding]
        for holding in leaving:
            if holding.leaving is not None:
                self._let_go(holding, holding.leaving)

    def _end(
        self,
        holding: Holding,
        *,
        status: JobStatus,
        error: JobError | None = None,
        artifacts: Mapping[str, StoredObject] | None = None,
        encode_seconds: float | None = None,
    ) -> None:
        job = holding.job
        ended = persist(
            lambda: self._ledger.finish(
                job, status=status, error=error, artifacts=artifacts, encode_seconds=encode_seconds
            ),
            action="finish",
        )
        if isinstance(ended, Verdict):
            self._leave(holding, ended.value)
            return
        report(Ended(ended))
        self._tidy(job.id)
        self._forget(holding)

    def _leave(self, holding: Holding, why: str) -> None:
        if why in (Verdict.GONE, Verdict.LOST):
            self._tidy(holding.job.id)  # of what was written since
        report(Left(holding.job.id, holding.job.attempt, why))
        self._forget(holding)

    def _lose(self, holding: Holding, verdict: Verdict) -> None:
        """A write was refused: the job is another's, or gone."""
        self._take_off(holding, Why.GONE if verdict is Verdict.GONE else Why.LOST)
        self._leave(holding, verdict.value)

    def _take_off(self, holding: Holding, why: Why) -> None:
        self._mailbox.put(TakeOff(holding.job.id, holding.job.attempt, why))

    def _forget(self, holding: Holding) -> None:
        self._holdings.remove(holding.job.id)
        self._mailbox.put(Wake())

    def _tidy(self, job_id: str) -> None:
        try:
            persist(lambda: self._tidier.tidy(job_id), action="tidy")
        except StoreError as error:
            log.warning("files left behind", extra={"action": "files_left", "error": error.message})

    @contextmanager
    def _blame(self, holding: Holding) -> Iterator[None]:
        """An error inside (a full disk, an encoder's) ends this job, not the publisher."""
        try:
            yield
        except Exception as error:
            unknown = None if isinstance(error, GriditError) else error
            extra = {"action": "publish_failed", "job_id": holding.job.id, "error": str(error)}
            log.error("publishing failed", exc_info=unknown, extra=extra)
            self._take_off(holding, Why.LOST)
            self._end(holding, status=JobStatus.FAILED, error=_job_error(error))


def _job_error(error: Exception) -> JobError:
    if isinstance(error, GriditError):
        return JobError(code=error.code, message=error.message)
    return JobError(code=JobFailure.code, message=f"{type(error).__name__}: {error}")
