"""The batch pump: one background task per API process, of which one at a time leads.

It reads a batch's file, submits its good lines at low priority as far as the bound allows, notes how each line ends,
and writes the result files. Every step can be repeated: a line's job has a fixed id, its outcome is recorded once, and
result files have fixed names. So a pump that dies is followed by another that reads where things stand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from dataclasses import dataclass, field

from service import views
from service.admission import Origin, submit
from service.context import Services
from service.files import keep
from service.lines import Line, as_line_error, read_lines, result_lines
from workers.contracts.batch import Batch, BatchStatus, LineError, Outcome, Purpose
from workers.contracts.errors import (
    GriditError,
    InvalidRequest,
    NotFound,
    QueueFull,
    StorageFull,
    StoreError,
    StoreUnavailable,
    Unavailable,
)
from workers.contracts.job import Job, JobStatus

log = logging.getLogger(__name__)

TURN_SECONDS = 0.5
IDLE_SECONDS = 2.0
LEAD_SECONDS = 5.0
"""A second leader for a moment does no harm: every step can be done twice."""
LOOKS_PER_TURN = 64
"""Jobs whose state is read in one turn."""
MOST_ERRORS = 100
"""Errors in the batch object; the error file has them all."""
ROOM = 2
"""Batches fill the queue up to this part of the bound, so that single requests still get in."""


@dataclass
class Progress:
    """Where a batch stands, as this process knows it; made anew from the records by whoever takes the lead."""

    waiting: deque[Line]
    """Good lines that are not submitted, in order."""
    flying: deque[Line] = field(default_factory=deque)
    """Lines whose job has not ended, as far as was seen."""


class Pump:
    """Drives every active batch, while it leads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._records = services.batches
        self._token = secrets.token_hex(8)
        self._progress: dict[str, Progress] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                is_busy = await self.turn()
            except Unavailable:
                is_busy = False
            except Exception:  # a batch that trips it must not end the batches of all others
                log.exception("batch pump failed", extra={"action": "batch_pump"})
                is_busy = False
            await self._pause(TURN_SECONDS if is_busy else IDLE_SECONDS)

    async def turn(self) -> bool:
        """One look at every active batch; whether there is any."""
        if not await self._records.lead(self._token, seconds=LEAD_SECONDS):
            self._progress.clear()
            return False
        batches = await self._records.active()
        for batch in batches:
            await self._step(batch)
        return bool(batches)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._services.batch_news.wait(), seconds)
        self._services.batch_news.clear()

    async def _step(self, batch: Batch) -> None:
        try:
            match batch.status:
                case BatchStatus.VALIDATING:
                    await self._validate(batch)
                case BatchStatus.CANCELLING if batch.in_progress_at is None:
                    await self._close(batch, BatchStatus.CANCELLED)  # nothing was submitted
                case BatchStatus.IN_PROGRESS | BatchStatus.CANCELLING:
                    await self._advance(batch)
                case BatchStatus.FINALIZING:
                    await self._close(batch, BatchStatus.COMPLETED)
        except (StorageFull, StoreUnavailable) as error:
            extra = {"action": "batch_wait", "batch_id": batch.id, "error": error.message}
            log.warning("batch waits for the store", extra=extra)
        except (InvalidRequest, NotFound, StoreError) as error:
            await self._fail(batch, error)
            log.warning("batch failed", extra={"action": "batch_fail", "batch_id": batch.id, "error": error.message})
        except Unavailable:  # no model is known yet, or Redis is out: the next turn tries again
            log.debug("batch waits", extra={"action": "batch_wait", "batch_id": batch.id})

    async def _validate(self, batch: Batch) -> None:
        """Read the file; bad lines end here, good ones make the batch go on."""
        lines = await self._lines(batch)
        errors = [line.error for line in lines if line.error]
        for line in lines:
            if line.error:
                outcome = Outcome(custom_id=line.custom_id, error=line.error)
                await self._records.record(batch.id, line.number, outcome)
        checked = batch.evolve(
            total=len(lines), errors=tuple(errors[:MOST_ERRORS]), in_progress_at=self._services.now()
        )
        if len(errors) == len(lines):
            await self._close(checked, BatchStatus.FAILED)
        else:
            await self._records.move(checked.evolve(status=BatchStatus.IN_PROGRESS), sources=(batch.status,))
            self._services.batch_news.set()

    async def _advance(self, batch: Batch) -> None:
        """Submit what may be, look how jobs are, and go on when none is left."""
        progress = self._progress.get(batch.id) or await self._recover(batch)
        self._progress[batch.id] = progress
        stops = batch.status is BatchStatus.CANCELLING or self._services.now() >= batch.expires_at
        if stops:
            await self._stop(batch, progress)
        else:
            await self._submit(batch, progress)
        await self._look(batch, progress)
        if progress.waiting or progress.flying:
            return
        if not stops:
            now = self._services.now()
            await self._records.move(
                batch.evolve(status=BatchStatus.FINALIZING, finalizing_at=now), sources=(batch.status,)
            )
            self._services.batch_news.set()
        else:
            is_cancelled = batch.status is BatchStatus.CANCELLING
            await self._close(batch, BatchStatus.CANCELLED if is_cancelled else BatchStatus.EXPIRED)

    async def _recover(self, batch: Batch) -> Progress:
        """Every good line that has no outcome yet is submitted again; its job may be there already."""
        ended = await self._records.recorded(batch.id)
        return Progress(deque(line for line in await self._lines(batch) if line.number not in ended))

    async def _submit(self, batch: Batch, progress: Progress) -> None:
        bound = max(1, self._services.settings.max_queued // ROOM)
        while progress.waiting:
            line = progress.waiting[0]
            try:
                await self._submit_line(batch, line, bound=bound)
                progress.flying.append(line)
            except (QueueFull, StorageFull):
                return
            except InvalidRequest as error:  # the catalogue has changed since the file was read
                await self._end(batch, line, as_line_error(line.number, error))
            progress.waiting.popleft()

    async def _submit_line(self, batch: Batch, line: Line, *, bound: int) -> None:
        if line.request is None:
            assert line.error
            raise InvalidRequest(line.error.message, param=line.error.param)
        await submit(self._services, line.request, origin=Origin(job_id=line.job_id(batch.id)), max_queued=bound)

    async def _look(self, batch: Batch, progress: Progress) -> None:
        """Note how jobs ended; those that go on move to the end of the line."""
        for _ in range(min(LOOKS_PER_TURN, len(progress.flying))):
            line = progress.flying.popleft()
            try:
                job = await self._services.queue.get(line.job_id(batch.id))
            except NotFound:
                await self._end(
                    batch, line, LineError(line=line.number, code="not_found", message="The job was deleted.")
                )
                continue
            if job.status.terminal:
                await self._records.record(batch.id, line.number, self._outcome(line, job))
            else:
                progress.flying.append(line)

    def _outcome(self, line: Line, job: Job) -> Outcome:
        if job.status is JobStatus.COMPLETED:
            return Outcome(custom_id=line.custom_id, body=views.video(job, now=self._services.now()))
        code = job.error.code if job.error else job.status.value
        message = job.error.message if job.error else f"The job was {job.status.value}."
        return Outcome(custom_id=line.custom_id, error=LineError(line=line.number, code=code, message=message))

    async def _stop(self, batch: Batch, progress: Progress) -> None:
        """What was not submitted ends now, what was is cancelled."""
        code = "batch_cancelled" if batch.status is BatchStatus.CANCELLING else "batch_expired"
        while progress.waiting:
            line = progress.waiting[0]
            try:
                await self._services.queue.get(line.job_id(batch.id))
                progress.flying.append(line)  # submitted by a pump before this one
            except NotFound:
                message = "The batch ended before this line was submitted."
                await self._end(batch, line, LineError(line=line.number, code=code, message=message))
            progress.waiting.popleft()
        for line in progress.flying:
            with contextlib.suppress(NotFound):
                await self._services.queue.cancel(line.job_id(batch.id))

    async def _close(self, batch: Batch, status: BatchStatus) -> None:
        """Write the result files, then the end."""
        good, bad = result_lines(batch.id, await self._records.outcomes(batch.id))
        ended = batch.evolve(
            status=status,
            output_file_id=await self._keep(batch, good, kind="output"),
            error_file_id=await self._keep(batch, bad, kind="errors"),
            **{f"{status.value}_at": self._services.now()},
        )
        await self._records.move(ended, sources=(batch.status,))
        self._progress.pop(batch.id, None)
        log.info("batch ended", extra={"action": "batch_end", "batch_id": batch.id, "status": status.value})

    async def _fail(self, batch: Batch, error: GriditError) -> None:
        fault = LineError(code=error.code, message=error.message)
        failed = batch.evolve(status=BatchStatus.FAILED, errors=(fault,), failed_at=self._services.now())
        await self._records.move(failed, sources=(batch.status,))
        self._progress.pop(batch.id, None)

    async def _keep(self, batch: Batch, content: bytes, *, kind: str) -> str | None:
        if not content:
            return None
        file_id = f"file-{batch.id}-{kind}"
        name = f"{batch.id}_{kind}.jsonl"
        await keep(self._services, content, name=name, purpose=Purpose.BATCH_OUTPUT, file_id=file_id)
        return file_id

    async def _end(self, batch: Batch, line: Line, error: LineError) -> None:
        await self._records.record(batch.id, line.number, Outcome(custom_id=line.custom_id, error=error))

    async def _lines(self, batch: Batch) -> list[Line]:
        file = await self._records.file(batch.input_file_id)
        content = await asyncio.to_thread(self._services.store.read, file.stored)
        return await asyncio.to_thread(read_lines, content, catalogue=await self._services.queue.catalogue())
