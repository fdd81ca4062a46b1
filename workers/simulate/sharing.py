"""Which jobs a worker leaves to others: the pure twin of `better_elsewhere` in `claim.lua`.

A worker knows how many jobs the others have in hand and what a row has lately taken them; it knows nothing of the jobs
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE_SECONDS = 2.0
"""A job is left to a worker that has room for no longer, unless that one has asked for jobs since."""
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
    asks: bool = True
    """Whether it has lately asked for jobs; one whose store is away, or that tries a suspect, does not."""


def better_elsewhere(model: str, mine: Hand, others: Sequence[Hand], *, waited: float) -> bool:
    """Whether another worker would be done with a job of `model` sooner, so that this one leaves it in line.

    `waited`: seconds that the job has been in line.
    """
    idle, late = mine.held == 0, waited > PATIENCE_SECONDS
    if idle and (mine.row_seconds is None or late):
        return False
    serving = [other for other in others if other.name != mine.name and model in other.models]
    if mine.row_seconds is None:
        return bool(serving)
    awaited = [other for other in serving if (not late or other.asks if other.held < other.slots else not idle)]
    return any(_sooner(other, mine, mine.row_seconds) for other in awaited)


def _sooner(other: Hand, mine: Hand, pace: float) -> bool:
    theirs = pace if other.row_seconds is None else other.row_seconds
    return (other.held + 1) * theirs < MARGIN * (mine.held + 1) * pace
