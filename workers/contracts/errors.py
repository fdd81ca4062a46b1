"""Every error a user can meet, each a class with a stable code.

A class says what went wrong and whether trying again helps; its HTTP status is mapped once, in `service.errors`.
Errors that end a job (`JobFailure` and below) are stored with the job as code and message.
"""

from __future__ import annotations

from typing import ClassVar


class GriditError(Exception):
    """Something the caller can act on."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        """`param` names the field at fault; `retry_after` is in whole seconds, 1..120."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class InvalidRequest(GriditError):
    """A field has a value that cannot be served; `param` names it and the message gives the limit."""

    code = "invalid_request"


class UnknownModel(InvalidRequest):
    """`model` names no bundle that is served."""

    code = "model_not_found"


class Unsupported(InvalidRequest):
    """A field that is part of the contract, with a value that this version cannot serve yet."""

    code = "unsupported"


class NotFound(GriditError):
    """No such job, frame, file or batch."""

    code = "not_found"


class Conflict(GriditError):
    """The resource exists but is not in a state that allows this."""

    code = "conflict"


class NotReady(Conflict):
    """The content asked for does not exist yet."""

    code = "not_ready"
    retryable = True


class IdempotencyMismatch(InvalidRequest):
    """The same idempotency key (or client id) came with another body."""

    code = "idempotency_key_reused"


class QueueFull(GriditError):
    """The admission bound is reached; nothing was queued."""

    code = "queue_full"
    retryable = True


class Unavailable(GriditError):
    """Redis is out, no catalogue is known, or the service is draining; nothing was queued."""

    code = "unavailable"
    retryable = True


class TooLarge(GriditError):
    """The request body is larger than the limit."""

    code = "request_too_large"


class InvalidSettings(GriditError):
    """The environment holds a bad or an unknown GRIDIT_* value; the process does not start."""

    code = "invalid_settings"


class SimulationInput(GriditError):
    """A table of step costs, a list of arrivals or a fleet cannot be simulated; the message names file and field."""

    code = "simulation_input"


class PortInUse(GriditError):
    """The address to listen on is taken by another process; nothing was started."""

    code = "port_in_use"


class StoreError(GriditError):
    """The object store cannot be written or read, or a path leads out of it; the message names it."""

    code = "store_error"


class StoreGone(StoreError):
    """A file is not in the store any more."""

    code = "store_gone"


class StoreUnavailable(StoreError):
    """The object store does not answer, tried again for a while; later it may."""

    code = "store_unavailable"
    retryable = True


class StorageFull(StoreError):
    """The store has no room: new jobs are refused, nothing was queued; a job that waited too long for room fails."""

    code = "storage_full"
    retryable = True


class JobFailure(GriditError):
    """A reason for which a job ends as failed."""

    code = "internal_error"


class NumericalError(JobFailure):
    """A unit produced values that are not finite."""

    code = "numerical_error"


class DeadlineExceeded(JobFailure):
    """The job's own deadline passed before it was done."""

    code = "deadline_exceeded"

    @classmethod
    def after(cls, limit: float | None) -> DeadlineExceeded:
        """`limit`: the job's `deadline_seconds`."""
        within = "in time" if limit is None else f"within {limit:g} s of its submission"
        return cls(f"not done {within}; ask for fewer frames or steps, or a longer deadline_seconds")


class WorkerLost(JobFailure):
    """The worker died too often without the job getting any further."""

    code = "worker_lost"


class ReferenceLost(JobFailure):
    """The frames that the user gave cannot be read any more."""

    code = "reference_lost"


class BundleUnavailable(JobFailure):
    """The worker that claimed the job cannot load its bundle."""

    code = "bundle_unavailable"
