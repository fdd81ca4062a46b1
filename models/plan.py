"""A job as a pure plan: units of work, what each needs, and which frames it makes.

The plan follows from the request and the bundle's spec alone, so a job that is resumed has the plan it had before and
does only the units whose results are not kept. `models.units` turns a unit into a generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from models import grid
from models.spec import BundleSpec, Stage

REFINE_ROWS = 16
"""Most frames that are refined in lockstep by one unit."""


class UnitKind(StrEnum):
    """What a unit does."""

    COARSE = "coarse"
    """Draw one grid."""
    REFINE = "refine"
    """Super-resolve a range of frames."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be drawn, with every default filled in."""

    num_frames: int
    seed: int
    label: int | None
    """Index of the class; None: the null label."""
    coarse_steps: int
    refine_steps: int
    sampler: str
    guidance_scale: float
    last: Stage = Stage.REFINE
    """The last stage to run."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One resumable piece of work; its result is the only checkpoint."""

    key: str
    """"coarse/3" (grid 3), "refine/16-32" (frames 16..31)."""
    kind: UnitKind
    index: int
    """The grid it draws or reads."""
    frames: range
    """Frames of the sequence that this unit is the first to make at its stage."""
    requires: tuple[str, ...]
    """Keys of the units whose results it reads."""


def plan(spec: BundleSpec, request: Request) -> tuple[Unit, ...]:
    """Every unit, in an order that one worker alone can follow: each grid, then its frames."""
    units: list[Unit] = []
    for index in range(grid.count(request.num_frames, k=spec.grid, overlap=spec.overlap_rows)):
        frames = grid.new_frames(index, request.num_frames, k=spec.grid, overlap=spec.overlap_rows)
        requires = (f"coarse/{index - 1}",) if index else ()
        units.append(Unit(f"coarse/{index}", UnitKind.COARSE, index, frames, requires))
        if request.last is Stage.REFINE:
            units.extend(_refinements(index, frames))
    return tuple(units)


def _refinements(index: int, frames: range) -> list[Unit]:
    chunks = [frames[start : start + REFINE_ROWS] for start in range(0, len(frames), REFINE_ROWS)]
    return [Unit(f"refine/{c.start}-{c.stop}", UnitKind.REFINE, index, c, (f"coarse/{index}",)) for c in chunks]
