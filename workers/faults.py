"""What an exception on the device thread says about who is to blame: a job, too large a batch, or the device itself.

Only texts tell some of them apart: libraries under torch raise plain RuntimeErrors. A device whose context is spoilt
(an illegal access, a failed assertion in a kernel) answers every later call with an error, so nothing is tried on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch

from workers.contracts.errors import JobFailure

_MEMORY = ("out of memory", "outofmemory", "can't allocate memory", "not enough memory", "status_alloc_failed")
_DEVICE = (
    "cuda error",
    "cudaerror",
    "cuda failure",
    "cuda runtime",
    "cuda driver",
    "device-side assert",
    "illegal memory access",
    "status_execution_failed",
)


class Blame(StrEnum):
    """Whose fault it is."""

    JOB = "job"
    MEMORY = "memory"
    """The rows did not fit; fewer may."""
    DEVICE = "device"
    """Nothing runs in this process any more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception without its traceback, which would keep a failed batch's tensors alive."""

    blame: Blame
    failure: JobFailure
    """What a job is told that fails of it."""
    final: bool
    """Whether it says itself that trying again is useless."""

    @classmethod
    def of(cls, error: Exception, *, where: str) -> Fault:
        """`where`: what was being done, for whoever reads the message."""
        if isinstance(error, JobFailure):
            return cls(Blame.JOB, type(error)(error.message), final=True)
        return cls(blame(error), JobFailure(f"{type(error).__name__} in {where}: {error}"), final=False)


def blame(error: Exception) -> Blame:
    """Whose fault an exception is."""
    text = str(error).casefold()
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(mark in text for mark in _MEMORY):
        return Blame.MEMORY
    if isinstance(error, torch.AcceleratorError) or any(mark in text for mark in _DEVICE):
        return Blame.DEVICE
    return Blame.JOB


def free_cached_memory() -> None:
    """Give back what torch keeps of the device's memory for later; a failed batch's tensors must be gone by now."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
