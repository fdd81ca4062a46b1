"""How long the device took for one engine run. A GPU goes on after a run was launched, so its own clock is read there.

Reading waits for the end of the run, not for what was launched after it: so no more than one run is ever under way,
a cancel takes effect at the next tick, and a slow device shows as a slow tick and not as a silence later.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Stopwatch(Protocol):
    """`start`, the run, `stop`, whatever else is to be launched meanwhile, `seconds`."""

    def start(self) -> None:
        """Right before the run."""

    def stop(self) -> None:
        """Right after its launch."""

    def seconds(self) -> float:
        """Of the run, which has ended when this returns."""


def stopwatch(device: torch.device) -> Stopwatch:
    """The one for runs on this device."""
    return _OfGpu() if device.type == "cuda" else _OfCpu()


class _OfCpu:
    def __init__(self) -> None:
        self._began = self._ended = 0.0

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> None:
        self._ended = time.perf_counter()

    def seconds(self) -> float:
        return self._ended - self._began


class _OfGpu:
    """Events on the current stream, which an engine with a stream of its own makes wait for it."""

    def __init__(self) -> None:
        self._began, self._ended = _event(), _event()

    def start(self) -> None:
        self._began.record()

    def stop(self) -> None:
        self._ended.record()

    def seconds(self) -> float:
        self._ended.synchronize()
        return float(self._began.elapsed_time(self._ended)) / 1000


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
