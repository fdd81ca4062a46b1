"""What a worker's threads and signal handlers tell its main loop.

A `SimpleQueue` may be written to from a signal handler, a lock or an Event may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from queue import SimpleQueue

from workers.device import Why


@dataclass(frozen=True, slots=True)
class Wake:
    """Something may have become possible: a job was queued, a slot is free, the device is ready."""


@dataclass(frozen=True, slots=True)
class StopJob:
    """Somebody asks by message that a job be stopped."""

    job_id: str


@dataclass(frozen=True, slots=True)
class TakeOff:
    """A job must leave the device."""

    job_id: str
    attempt: int
    why: Why


@dataclass(frozen=True, slots=True)
class Terminate:
    """Stop: drain first; asked twice: give all back at once."""


@dataclass(frozen=True, slots=True)
class Hung:
    """The device has not moved for so long that nothing more is expected of it."""


Message = Wake | Hung | StopJob | TakeOff | Terminate
Mailbox = SimpleQueue[Message]
