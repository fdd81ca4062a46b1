"""Which jobs a worker leaves to others: the pure twin of `better_elsewhere` in `claim.lua`.

A worker knows how many jobs the others have in hand and what a row has lately taken them; it knows nothing of the jobs
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE_SECONDS = 2.0
"""An idle worker leaves a job to another for no longer."""
MARGIN = 0.95
"""Another is better only if it is so much sooner."""


@dataclass(frozen=True, slots=True)
class Hand:
    """What a worker tells of itself."""

    name: str
    models: tuple[str, ...]
    slots: int
    held: int
    """Jobs in hand."""
    row_seconds: float | None
    """What a row of a batch has lately taken; None: nothing has run yet, and others take it for as fast as they are."""


def better_elsewhere(model: str, mine: Hand, others: Sequence[Hand], *, waited: float) -> bool:
    """Whether another worker would be done with a job of `model` sooner, so that this one leaves it in line.

    `waited`: seconds that the job has been in line.
    """
    idle = mine.held == 0
    if idle and (mine.row_seconds is None or waited > PATIENCE_SECONDS):
        return False
    return any(_better(other, mine) for other in others if other.name != mine.name and model in other.models)


def _better(other: Hand, mine: Hand) -> bool:
    if mine.row_seconds is None:
        return True
    if mine.held == 0 and other.held >= other.slots:
        return False
    theirs = mine.row_seconds if other.row_seconds is None else other.row_seconds
    return (other.held + 1) * theirs < MARGIN * (mine.held + 1) * mine.row_seconds
