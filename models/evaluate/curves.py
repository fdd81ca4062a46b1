"""Seam and drift curves of a class: what they are made of, what they say, and how they are written down.

Both are measured on every view, coarse and refined; generated sequences of many grids stand beside real ones of the
same class. `models.evaluate.plots` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from models.evaluate import seams
from models.evaluate.drift import Drift, FeatureShift, drifts, feature_shift
from models.evaluate.seams import Interval, Place, SeamReport, Step
from models.evaluate.traces import Traces
from models.spec import Stage

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One view of one class."""

    generated: Traces
    held_out: Traces
    """Real sequences, beside which the generated ones are shown."""
    reference: Traces
    """Other real ones, against which both are measured."""


@dataclass(frozen=True)
class ByCell:
    """Mean frame-to-frame distance of the steps into each cell of a grid; grey levels."""

    cells: list[int]
    seams: list[bool]
    """Whether the step is one between grids, or between rows."""
    distances: list[Interval]


@dataclass(frozen=True)
class View:
    """The curves of one view."""

    stage: Stage
    seams: SeamReport
    first_grid: ByCell
    later_grids: ByCell
    real: ByCell
    """Real sequences at the places of the later grids, or of the first where there is only one."""
    drifts: tuple[Drift, ...]
    shift: FeatureShift

    @property
    def name(self) -> str:
        """As the gate calls it."""
        return "coarse" if self.stage is Stage.COARSE else "refined"

    def to_json(self) -> dict[str, Any]:
        grids = {"first_grid": self.first_grid, "later_grids": self.later_grids, "real": self.real}
        return {
            "view": self.name,
            "seams": self.seams.to_json(),
            "by_cell": {name: _by_cell_json(one) for name, one in grids.items()},
            "drift": [drift.to_json() for drift in self.drifts],
            "feature_shift": self.shift.to_json(),
        }


@dataclass(frozen=True)
class ClassCurves:
    name: str
    views: tuple[View, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "views": [view.to_json() for view in self.views]}


def view_of(stage: Stage, measured: Measured, *, steps: tuple[Step, ...]) -> View:
    """Curves of sequences whose frames were put together in these steps."""
    real, generated = measured.held_out, measured.generated
    later = [step for step in steps if step.grid] or list(steps)
    return View(
        stage=stage,
        seams=seams.report(generated.steps, real.steps, steps=steps),
        first_grid=_by_cell(generated.steps, steps, grids={0}),
        later_grids=_by_cell(generated.steps, steps, grids={step.grid for step in steps} - {0}),
        real=_by_cell(real.steps, steps, grids={step.grid for step in later}),
        drifts=drifts(generated, real, reference=measured.reference),
        shift=feature_shift(generated, real, reference=measured.reference),
    )


def seam_table(curves: Sequence[ClassCurves]) -> Table:
    """The ratios of every class and view, with their confidence intervals."""
    table = _table("class", "view", "seams", "generated", "real", "", title="Frame-to-frame distance at seams")
    table.caption = "grids: between grids / inside a grid; rows: between rows / within a row; 95 % intervals"
    for one in curves:
        for view, place in zip(one.views, _places(one), strict=True):
            found = view.seams
            table.add_section()
            table.add_row(*place, "grids", _shown(found.grid_seam), _shown(found.real_grid_seam), found.verdict)
            table.add_row("", "", "rows", _shown(found.row_seam), _shown(found.real_row_seam), "")
    return table


def drift_table(curves: Sequence[ClassCurves]) -> Table:
    """How much each level changes from the first quarter of the frames to the last."""
    table = _table("class", "view", "level", "generated", "real", title="Change from the first quarter to the last")
    table.caption = "in spreads of real frames, 95 % intervals; features: distance from real ones, first -> last window"
    for one in curves:
        for view, place in zip(one.views, _places(one), strict=True):
            table.add_section()
            shift = view.shift
            for index, drift in enumerate(view.drifts):
                table.add_row(
                    *(place if not index else ("", "")), drift.name, str(drift.change), str(drift.real_change)
                )
            table.add_row(
                "", "", "features", *(f"{one[0]:.2f} -> {one[-1]:.2f}" for one in (shift.generated, shift.real))
            )
    return table


def _places(curves: ClassCurves) -> list[tuple[str, str]]:
    """Class and view of each view; the class once."""
    return [(curves.name if not index else "", view.name) for index, view in enumerate(curves.views)]


def _by_cell(distances: Doubles, steps: tuple[Step, ...], *, grids: set[int]) -> ByCell:
    """Of distances (S, G - 1), which may cover fewer steps than there are."""
    columns: dict[int, list[int]] = {}
    for index, step in enumerate(steps[: distances.shape[1]]):
        if step.grid in grids:
            columns.setdefault(step.cell, []).append(index)
    cells = sorted(columns)
    at_seam = [steps[columns[cell][0]].place is not Place.INSIDE for cell in cells]
    return ByCell(cells, at_seam, [seams.mean(distances[:, columns[cell]].mean(axis=1)) for cell in cells])


def _by_cell_json(one: ByCell) -> dict[str, list[float]]:
    return {
        "cells": [float(cell) for cell in one.cells],
        "mean": [each.value for each in one.distances],
        "low": [each.low for each in one.distances],
        "high": [each.high for each in one.distances],
    }


def _table(*columns: str, title: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, no_wrap=column in ("generated", "real"))
    return table


def _shown(interval: Interval | None) -> str:
    return "none" if interval is None else str(interval)
