"""Is a sequence put together seamlessly? Frame-to-frame distances by where in a grid the step lies.

A frame's place is its cell in the grid that it was drawn in. The step into the first frame of a grid's own is a seam
between grids, that into the first frame of a row a seam between rows; the others lie within a row. Confidence intervals
come from resampling whole sequences, since steps of one sequence are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.plan import Request, plan
from models.spec import BundleSpec, Stage

Doubles = NDArray[np.float64]

_RESAMPLED = 2000


class Place(StrEnum):
    """Where the step from one frame to the next lies."""

    GRID = "between grids"
    ROW = "between rows of a grid"
    INSIDE = "within a row"


@dataclass(frozen=True, slots=True)
class Step:
    """From the frame before into this one."""

    place: Place
    cell: int
    """Of the frame that the step leads to, in the grid that it was drawn in."""
    grid: int
    """Counted by what is shown, in the order of the frames."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over sequences, or a ratio of such means, with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class SeamReport:
    """The distances of one view: generated steps, and real ones at the same places. None: there are no such steps."""

    grid_seam: Interval | None
    """Distance at seams between grids over that of every step inside a grid."""
    row_seam: Interval | None
    """Distance at seams between rows over that within rows."""
    real_grid_seam: Interval | None
    real_row_seam: Interval | None

    @property
    def verdict(self) -> str:
        """Whether seams between grids are larger than what is inside a grid, as far as chance lets one tell."""
        if self.grid_seam is None:
            return "no seams"
        if self.grid_seam.low > 1.0:
            return "larger"
        return "no larger" if self.grid_seam.value <= 1.0 else "unclear"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def steps_of(spec: BundleSpec, request: Request) -> tuple[Step, ...]:
    """The steps of a sequence that is drawn so: one fewer than it has frames."""
    units = (unit for unit in plan(spec, request) if unit.stage is Stage.COARSE and unit.frames)
    found: list[Step] = []
    for index, unit in enumerate(sorted(units, key=lambda unit: unit.frames.start)):
        found += [_step(cell, unit.cells.start, spec.grid, index) for cell in unit.cells]
    return tuple(found[1:])


def report(generated: Doubles, real: Doubles, *, steps: tuple[Step, ...]) -> SeamReport:
    """Of distances (S, F - 1) and real ones (T, G - 1), G <= F."""
    covered = steps[: real.shape[1]]
    inside = (Place.ROW, Place.INSIDE)
    return SeamReport(
        grid_seam=ratio(generated, steps=steps, of=[Place.GRID], over=inside),
        row_seam=ratio(generated, steps=steps, of=[Place.ROW], over=[Place.INSIDE]),
        real_grid_seam=ratio(real, steps=covered, of=[Place.GRID], over=inside),
        real_row_seam=ratio(real, steps=covered, of=[Place.ROW], over=[Place.INSIDE]),
    )


def ratio(
    distances: Doubles, *, steps: tuple[Step, ...], of: Iterable[Place], over: Iterable[Place]
) -> Interval | None:
    """Mean distance, (S, F - 1), of the steps at some places over that at others; None where there are none."""
    one, other = (np.isin([step.place for step in steps], list(places)) for places in (of, over))
    if not (one.any() and other.any()):
        return None
    means = np.stack([distances[:, one].mean(axis=1), distances[:, other].mean(axis=1)], axis=1)
    return _interval(means, lambda mean: mean[..., 0] / np.maximum(mean[..., 1], 1e-9))


def mean(values: Doubles) -> Interval:
    """Of one number a sequence, (S,)."""
    return _interval(values[:, None], lambda mean: mean[..., 0])


def _interval(values: Doubles, figure: Callable[[Doubles], Doubles]) -> Interval:
    """Of a figure of means over sequences: `values` (S, M), `figure` (..., M) -> (...)."""
    draws = np.random.default_rng(0).integers(len(values), size=(_RESAMPLED, len(values)))
    low, high = np.quantile(figure(values[draws].mean(axis=1)), [0.025, 0.975])
    return Interval(float(figure(values.mean(axis=0))), float(low), float(high))


def _step(cell: int, first: int, k: int, grid: int) -> Step:
    place = Place.GRID if cell == first else Place.ROW if cell % k == 0 else Place.INSIDE
    return Step(place, cell, grid)
