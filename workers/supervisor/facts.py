"""What happens while `gridit up` runs; a display makes lines of it."""

from __future__ import annotations

from dataclasses import dataclass

from workers import embedded
from workers.contracts.catalogue import WorkerState
from workers.supervisor.children import Died, Started
from workers.supervisor.devices import Seat
from workers.supervisor.process import Process


@dataclass(frozen=True)
class OrphansStopped:
    """Processes that a killed supervisor had left."""

    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Ready:
    """The service answers and every worker is warm."""

    url: str
    seconds: float
    server: embedded.Binary
    workers: tuple[WorkerState, ...]
    seats: tuple[Seat, ...]
    """What each of them was given."""


@dataclass(frozen=True)
class Released:
    """A dead worker's jobs are back in the queue."""

    instance: str
    jobs: int


@dataclass(frozen=True)
class Stopping:
    """Somebody asked; workers go on with their jobs for at most `patience` seconds."""

    patience: float


Fact = Started | Died | OrphansStopped | Ready | Released | Stopping
