"""From the queue to the device: claims while slots are free, and resumes from what is persisted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from queue import Queue

from workers import results
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import StoreUnavailable
from workers.contracts.job import Numerics
from workers.device import Device, Out, Resumed
from workers.facts import Claimed
from workers.holdings import Holding, Holdings
from workers.metrics import report
from workers.queue.connect import AWAY
from workers.queue.ledger import Claim, Ledger
from workers.storage import Store

log = logging.getLogger(__name__)


class Intake:
    """Fills the slots of one worker."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        *,
        holdings: Holdings,
        device: Device,
        out: Queue[Out | None],
        slots: int,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._holdings = holdings
        self._device = device
        self._out = out
        self._slots = slots
        self._unsure = False

    def fill(self) -> None:
        """Claim until the slots are full or nothing waits; with Redis away, nothing.

        Raises StoreUnavailable, with the job given back, when what is persisted of one cannot be read now.
        """
        try:
            if self._unsure:
                self._give_back_unknown()
            while len(self._holdings) < self._slots and self._take_one():
                pass
        except AWAY as error:
            log.warning("redis is away", extra={"action": "claim", "error": str(error)})

    def _take_one(self) -> bool:
        """One more job, for the engines that serve now. False: nothing waits."""
        with self._device.claiming:
            numerics = numerics_of(self._device.catalogue)
            claim = self._claim(numerics)
            if claim is not None:
                self._start(claim, numerics)
            return claim is not None

    def _claim(self, numerics: Mapping[str, Numerics]) -> Claim | None:
        self._unsure = True  # until the reply is here, a job may be ours without our knowing
        claim = self._ledger.claim(numerics, row_seconds=self._device.row_seconds)
        self._unsure = False
        return claim

    def _give_back_unknown(self) -> None:
        """Jobs that a lost reply made ours."""
        held = {holding.job.id for holding in self._holdings.all()}
        for job_id, attempt in self._ledger.executions().items():
            if job_id not in held:
                self._ledger.give_back(job_id, attempt)
        self._unsure = False

    def _start(self, claim: Claim, numerics: Mapping[str, Numerics]) -> None:
        job = claim.job
        report(Claimed(job))
        mine = numerics.get(job.spec.model)
        if mine != job.numerics and claim.units:
            fields = {"was": _told(job.numerics), "now": _told(mine)}
            log.warning("numerics changed", extra={"action": "numerics_changed", "job_id": job.id, **fields})
        try:
            task = results.task_of(claim, self._store)
        except StoreUnavailable:
            self._give_back_unknown()
            raise
        holding = Holding.of(claim)
        self._holdings.add(holding)
        if holding.publishable():
            self._out.put(Resumed(job.id, job.attempt))
        self._device.admit(task)


def _told(numerics: Numerics | None) -> str:
    return "unknown" if numerics is None else f"{numerics.engine} {numerics.precision} {numerics.version}"


def numerics_of(catalogue: Sequence[CatalogueEntry]) -> dict[str, Numerics]:
    """By model: what decides pixels on this worker."""
    return {entry.name: _numerics(entry) for entry in catalogue}


def _numerics(entry: CatalogueEntry) -> Numerics:
    infos = [entry.engines[net] for net in sorted(entry.engines)]
    return Numerics(
        bundle_hash=entry.hash,
        engine=_joined([info.engine for info in infos]),
        precision=_joined([info.precision for info in infos]),
        version=_version(),
    )


def _joined(words: Sequence[str]) -> str:
    """One word where all nets are alike, else one for each net, in the order of the nets' names."""
    return words[0] if len(set(words)) == 1 else ",".join(words)


def _version() -> str:
    try:
        return metadata.version("gridit-serve")
    except metadata.PackageNotFoundError:
        return "unknown"
