"""The limits of the gate, read from `limits.json`.

The file has a commit of its own, older than the figures it judges: a limit that is moved
afterwards is seen in its history. `at_least_of_real` is a share of the same figure on real sequences.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SLACK = 1.25
"""How far beyond the worse of two figures of real sequences a widened limit lies."""
NEUTRAL = {"border": 1.0, "row_jump": 1.0}
"""Figures that are ratios; all others are 0 where there is nothing to be seen."""
LIMITS = Path(__file__).with_name("limits.json")


class Bound(enum.Enum):
    AT_MOST = "at_most"
    AT_LEAST = "at_least"
    AT_LEAST_OF_REAL = "at_least_of_real"


class Policy(enum.Enum):
    """What becomes of a limit that real sequences do not keep."""

    FIXED = "fixed"
    """It stands: the limits were made for these data, and the gate is at fault."""
    WIDENED = "widened"
    """It gives way: the data are the user's, and were never held against the limits before."""


@dataclass(frozen=True)
class Limit:
    """One bound. With AT_LEAST_OF_REAL the value is a share of the reference's figure."""

    bound: Bound
    value: float

    def threshold(self, reference: float) -> float:
        """The number a figure is held against, in the figure's own unit."""
        return self.value * reference if self.bound is Bound.AT_LEAST_OF_REAL else self.value

    def holds(self, figure: float, *, reference: float) -> bool:
        """Whether the figure keeps the limit; one that is not a number does not."""
        threshold = self.threshold(reference)
        return figure <= threshold if self.bound is Bound.AT_MOST else figure >= threshold

    def share(self, figure: float, *, reference: float) -> float:
        """The figure in the unit of `value`."""
        return figure / max(reference, 1e-9) if self.bound is Bound.AT_LEAST_OF_REAL else figure

    def widened(self, shares: Sequence[float], *, neutral: float = 0.0) -> Limit:
        """Itself if real sequences keep it, whose shares these are; otherwise one that they keep with some slack.

        Slack is a share of the distance from `neutral`, what the figure is where there is nothing to be seen.
        """
        if self.bound is Bound.AT_MOST:
            worst = max(shares)
            return self if worst <= self.value else replace(self, value=neutral + (worst - neutral) * SLACK)
        worst = min(shares)
        return self if worst >= self.value else replace(self, value=worst / SLACK)


def read_limits(path: Path = LIMITS) -> dict[str, Limit]:
    """The limits of a file, by the name of the figure."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {name: Limit(bound=Bound(entry["bound"]), value=float(entry["value"])) for name, entry in entries.items()}
