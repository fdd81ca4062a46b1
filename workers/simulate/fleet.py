"""The workers of a simulation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker."""

    name: str
    models: tuple[str, ...]
    """The bundles it serves."""
    slots: int = 8
    """Jobs in hand at once."""
    speed: float = 1.0
    """Against the machine that the costs are of."""


def alike(count: int, *, models: tuple[str, ...], slots: int = 8, speed: float = 1.0) -> tuple[WorkerSpec, ...]:
    """So many equal workers."""
    return tuple(WorkerSpec(f"worker-{index + 1}", models, slots, speed) for index in range(count))
