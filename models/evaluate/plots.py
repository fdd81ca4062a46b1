"""Seam and drift curves as pictures, by matplotlib (extra: evaluate), which is only loaded here."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.evaluate.curves import ByCell, ClassCurves, View
from models.evaluate.drift import Course, Drift

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GENERATED, _FIRST, _REAL, _SEAM = "#1858b0", "#7aa6dc", "#8a8a8a", "#c04020"
_PANEL = (6.4, 2.3)
"""Width and height of one panel, inches."""


class NoPlots(RuntimeError):
    """The library that draws is not installed."""

    def __init__(self) -> None:
        super().__init__("curves are drawn by matplotlib, which is not installed: pip install 'gridit-serve[evaluate]'")


def available() -> None:
    """Raise `NoPlots` now rather than after minutes of drawing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise NoPlots from error


def pictures(curves: ClassCurves, *, bundle: str) -> Iterator[tuple[str, bytes]]:
    """Names and PNG files: the seams of every view, and its drift."""
    yield f"{curves.name}-seams", _png(_seams(curves, bundle))
    yield f"{curves.name}-drift", _png(_drift(curves, bundle))


def _seams(curves: ClassCurves, bundle: str) -> Figure:
    figure, panels = _figure(rows=len(curves.views), columns=1, height=3.2)
    for (axes,), view in zip(panels, curves.views, strict=True):
        _draw_seams(axes, view)
    figure.suptitle(f"{bundle}, {curves.name}: frame-to-frame distance by place in the grid")
    return figure


def _draw_seams(axes: Axes, view: View) -> None:
    drawn = ((view.first_grid, "first grid", _FIRST), (view.later_grids, "later grids", _GENERATED))
    for grid, label, colour in (*drawn, (view.real, "real", _REAL)):
        if grid.cells:
            _draw_cells(axes, grid, label, colour)
    rows = view.later_grids if view.later_grids.cells else view.first_grid
    grid_seam = min(view.later_grids.cells, default=None)
    for cell, seam in zip(rows.cells, rows.seams, strict=True):
        if seam:
            style = "-" if cell == grid_seam else ":"
            axes.axvline(cell, color=_SEAM, linestyle=style, linewidth=1.2)
    for style, label in (("-", "between grids"), (":", "between rows")):
        axes.plot([], [], color=_SEAM, linestyle=style, linewidth=1.2, label=label)
    ratio = view.seams.grid_seam
    figure = "one grid only" if ratio is None else f"seam between grids / inside a grid: {ratio}"
    axes.set_title(f"{view.name} frames; {figure}", fontsize=9, loc="left")
    axes.set(xlabel="cell of the grid that the step leads to", ylabel="RMS change, grey levels")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, ncols=5, loc="lower center", frameon=False, columnspacing=1.2)


def _draw_cells(axes: Axes, grid: ByCell, label: str, colour: str) -> None:
    middle = [each.value for each in grid.distances]
    below = [each.value - each.low for each in grid.distances]
    above = [each.high - each.value for each in grid.distances]
    axes.errorbar(
        grid.cells, middle, yerr=[below, above], color=colour, label=label, marker="o", ms=3, lw=1.2, capsize=2
    )


def _drift(curves: ClassCurves, bundle: str) -> Figure:
    rows = len(curves.views[0].drifts) + 1
    figure, panels = _figure(rows=rows, columns=len(curves.views), height=_PANEL[1])
    for column, view in enumerate(curves.views):
        for row, drift in enumerate(view.drifts):
            _draw_level(panels[row][column], drift)
        _draw_shift(panels[-1][column], view)
        panels[0][column].set_title(
            f"{view.name} frames: {panels[0][column].get_title(loc='left')}", fontsize=9, loc="left"
        )
        panels[-1][column].set_xlabel("frame")
    figure.suptitle(f"{bundle}, {curves.name}: drift over the sequence (means, 95 % intervals)")
    return figure


def _draw_level(axes: Axes, drift: Drift) -> None:
    _draw_course(axes, drift.real, "real", _REAL)
    _draw_course(axes, drift.generated, "generated", _GENERATED)
    axes.set_title(f"{drift.name}; change {drift.change}, real {drift.real_change}", fontsize=9, loc="left")
    axes.set_ylabel(drift.unit.replace(", ", ",\n"), fontsize=8)
    axes.legend(fontsize=7, frameon=False)


def _draw_course(axes: Axes, course: Course, label: str, colour: str) -> None:
    axes.fill_between(course.frames, course.low, course.high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(course.frames, course.mean, color=colour, label=label, linewidth=1.2)


def _draw_shift(axes: Axes, view: View) -> None:
    shift = view.shift
    axes.plot(shift.frames[: len(shift.real)], shift.real, color=_REAL, label="real, by chance", marker="o", ms=3)
    axes.plot(shift.frames, shift.generated, color=_GENERATED, label="generated", marker="o", ms=3)
    axes.set_title("features of windows of 16 frames: distance from real ones", fontsize=9, loc="left")
    axes.set_ylabel("RMS over features,\nreal spreads", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)


def _figure(*, rows: int, columns: int, height: float) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_PANEL[0] * max(columns, 1), height * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.grid(visible=True, color="#e8e8e8", linewidth=0.6)
        axes.tick_params(labelsize=8)
    return figure, [list(row) for row in panels]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
