"""Which engine serves a net, decided from records: pure, so every branch is a test without a machine.

What is known to be as good and faster serves, the fastest first. What could be, and has no record yet, is wanted, and
torch serves meanwhile. Capabilities decide nothing here: instructions for bfloat16 may well be slower than float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.compiling.engine_record import Record
from models.engine import Precision
from models.graph import Part
from models.parity import LIMITS

MARGIN = 1.1
"""How much faster than float32 another precision must be to be preferred: less is within what timings vary by."""

Wanted = tuple[str, Precision]
"""(engine, precision) of what could be faster and is to be built and measured."""


class Asked(StrEnum):
    """Who chose the engine."""

    BY_NAME = "by name"
    """The user: it need not be faster than torch."""
    FOR_THE_BEST = "for the best"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A compiled engine that could serve a net on this device."""

    engine: str
    precision: Precision
    records: tuple[Record, ...]
    """Of its plans on this machine, one for each graph of the net; empty if there are none."""

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.engine} {self.precision}"

    @property
    def speedup(self) -> float:
        """Torch's time over its own, where whole nets are run; 0 if it was never measured."""
        found = [record.measured.speedup for record in self.records if record.measured and _whole(record)]
        return math.prod(found) ** (1 / len(found)) if found else 0.0

    @property
    def measured(self) -> bool:
        """Whether all its plans were."""
        return bool(self.records) and all(record.measured for record in self.records)

    @property
    def gap(self) -> float:
        """The widest to torch."""
        return max((record.measured.parity for record in self.records if record.measured), default=math.inf)

    @property
    def whole(self) -> Record:
        """That of a whole net."""
        return next(record for record in self.records if _whole(record))


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is to be tried, what is to be built, and why the rest is neither."""

    usable: tuple[Candidate, ...]
    """Best first."""
    wanted: tuple[Wanted, ...]
    refused: tuple[str, ...]
    """A reason each."""


def rank(candidates: Sequence[Candidate], *, asked: Asked) -> Ranking:
    """`candidates` in the order in which they are preferred while nothing is measured."""
    refused = {candidate.label: reason for candidate in candidates if (reason := objection(candidate, asked))}
    left = [candidate for candidate in candidates if candidate.label not in refused]
    usable = [
        candidate for candidate in left if candidate.measured or (asked is Asked.BY_NAME and _openable(candidate))
    ]
    wanted = tuple((c.engine, c.precision) for c in left if c not in usable and not c.measured)
    best_first = sorted(usable, key=_worth, reverse=True)
    return Ranking(tuple(best_first), wanted, tuple(refused.values()))


def objection(candidate: Candidate, asked: Asked) -> str | None:
    """Why what is known of a candidate rules it out; None if it does not."""
    if not candidate.records:
        return None
    if candidate.precision.quantised and not _accepted(candidate.records):
        return f"{candidate.label} was refused by the bundle's quality gate"
    if not candidate.measured:
        return None
    limit = math.inf if candidate.precision.quantised else LIMITS[candidate.precision]
    if not candidate.gap <= limit:  # so that NaN is refused
        return f"{candidate.label} differs from torch by {candidate.gap:.2g}, more than {limit:.2g}"
    if asked is Asked.FOR_THE_BEST and candidate.speedup <= 1:
        return f"{candidate.label} is {candidate.speedup:.2f} times as fast as {_torch(candidate)} here"
    return None


def praise(candidate: Candidate, *, gap: float) -> str:
    """Why a candidate serves; `gap` is what was found when it was opened."""
    if not candidate.measured:
        return f"{candidate.label} was asked for; it differs from torch by {gap:.1g} and was never timed here"
    pace = f"{candidate.speedup:.2f} times as fast as {_torch(candidate)} here"
    return f"{candidate.label} is {pace} and differs by {gap:.1g}"


def regret(reasons: Sequence[str], wanted: Sequence[Wanted]) -> str:
    """Why torch serves: what was wrong with the others, and what is not built."""
    missing = ", ".join(f"{engine} {precision}" for engine, precision in wanted)
    told = (*reasons, f"not built and measured here: {missing}") if missing else reasons
    return "; ".join(told) or "nothing else was asked for"


def _worth(candidate: Candidate) -> float:
    """Speed, less the margin where the arithmetic is coarser."""
    return candidate.speedup / (1 if candidate.precision is Precision.FP32 else MARGIN)


def _openable(candidate: Candidate) -> bool:
    """Whether its last gate can judge it unmeasured: of a quantised one that must know how far off it was."""
    return bool(candidate.records) and not candidate.precision.quantised


def _torch(candidate: Candidate) -> str:
    measured = candidate.whole.measured
    assert measured is not None
    return f"torch {measured.torch_precision}"


def _whole(record: Record) -> bool:
    return f"-{Part.WHOLE}" in record.graph


def _accepted(records: Sequence[Record]) -> bool:
    judged = [record.quality.accepted for record in records if record.quality is not None]
    return bool(judged) and all(judged)
