"""Results on their way from the device to whoever is told, in order, without the device waiting for any of them.

On a GPU a result is copied into pinned memory while the next batch runs; whether its values are finite is found there
too and read with it. Everything that is said of jobs goes through one line, so nothing overtakes a result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import units
from models.plan import Unit
from models.spec import BundleSpec
from workers.contracts.errors import NumericalError
from workers.tasks import Fact, TaskFailed, TaskFinished, UnitFinished


class Leaving(Protocol):
    """A result that is being copied to the host."""

    @property
    def here(self) -> bool:
        """Whether it has arrived."""

    @property
    def is_finite(self) -> bool:
        """Whether all its values are; waits for it."""

    def taken(self) -> NDArray[np.float32]:
        """The result on the host, which nobody else writes to; waits for it."""


Leave = Callable[[Tensor], Leaving]


def leave(result: Tensor) -> Leaving:
    """Begin to copy; the result may be used further, but not written to."""
    return _FromGpu(result) if result.device.type == "cuda" else _OnHost(result)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A finished unit whose result is on its way."""

    job_id: str
    attempt: int
    unit: Unit
    spec: BundleSpec
    leaving: Leaving
    started_at: float
    seconds: float

    def opened(self) -> UnitFinished | TaskFailed:
        """What is told of it; waits for it."""
        if not self.leaving.is_finite:
            return TaskFailed(self.job_id, self.attempt, not_finite(self.unit))
        result = self.leaving.taken()
        drawn = units.pictures(self.unit, torch.from_numpy(result), spec=self.spec).numpy()
        told = (self.job_id, self.attempt, self.unit, result, drawn, self.spec.bits)
        return UnitFinished(*told, self.started_at, self.seconds)


class Outgoing:
    """What is to be told of jobs, in order. Not thread safe."""

    def __init__(self) -> None:
        self._line: deque[Parcel | TaskFinished | TaskFailed] = deque()

    def __bool__(self) -> bool:
        return bool(self._line)

    def put(self, entry: Parcel | TaskFinished | TaskFailed) -> None:
        """To be told after all that was put before."""
        self._line.append(entry)

    def forget(self, job_id: str) -> None:
        """Tell nothing more of a job."""
        self._line = deque(entry for entry in self._line if entry.job_id != job_id)

    def arrived(self) -> list[Fact]:
        """What can be told without waiting. A job with values that are not finite fails, and nothing follows."""
        facts: list[Fact] = []
        while self._line and (not isinstance(self._line[0], Parcel) or self._line[0].leaving.here):
            facts.append(self._first())
        return facts

    def awaited(self) -> list[Fact]:
        """At least the first, for which it waits."""
        return [self._first(), *self.arrived()] if self._line else []

    def _first(self) -> Fact:
        entry = self._line.popleft()
        fact = entry.opened() if isinstance(entry, Parcel) else entry
        if isinstance(fact, TaskFailed):
            of = (fact.job_id, fact.attempt)
            self._line = deque(entry for entry in self._line if (entry.job_id, entry.attempt) != of)
        return fact


def not_finite(unit: Unit) -> NumericalError:
    """What a job fails of whose unit has come to such a result."""
    return NumericalError(f"{unit.key} produced values that are not finite")


class _OnHost:
    """It is there already; a copy, since what is kept of it is the runner's."""

    here = True

    def __init__(self, result: Tensor) -> None:
        self.is_finite = bool(torch.isfinite(result).all())
        self._result: NDArray[np.float32] = result.numpy().copy()

    def taken(self) -> NDArray[np.float32]:
        return self._result


class _FromGpu:
    """On the stream that made it, so the copy follows its making; the next batch does not wait for the host."""

    def __init__(self, result: Tensor) -> None:
        finite = torch.isfinite(result).all()
        self._result = torch.empty(result.shape, dtype=result.dtype, pin_memory=True).copy_(result, non_blocking=True)
        self._finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
        self._sources = result, finite  # whose memory must not be another's before the copy is done
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record()

    @property
    def here(self) -> bool:
        return bool(self._done.query())  # type: ignore[no-untyped-call]

    @property
    def is_finite(self) -> bool:
        self._done.synchronize()
        return bool(self._finite)

    def taken(self) -> NDArray[np.float32]:
        self._done.synchronize()
        taken: NDArray[np.float32] = self._result.numpy()
        return taken
