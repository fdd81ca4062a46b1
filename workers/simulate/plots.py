"""Reports as pictures, by matplotlib (extra: evaluate), which is only loaded here."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from workers.simulate.report import WINDOW, Report
from workers.simulate.summary import MEASURES, Summary, utilisation
from workers.simulate.writing import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#1858b0", "#8a8a8a", "#c04020", "#3a8a50")
_SHORTEST = 0.1
"""Seconds: what is shorter is drawn here."""
_TICKS = {0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36000: "10 h"}


def pictures(reports: Sequence[Report], summaries: Sequence[Summary], *, title: str) -> Iterator[tuple[str, bytes]]:
    """Names and PNG files: times of jobs, the course of the day, tenants and priorities."""
    yield "times.png", _png(_times(reports, title))
    yield "day.png", _png(_day(reports, title))
    yield "tenants.png", _png(_tenants(summaries, title))


def _times(reports: Sequence[Report], title: str) -> Figure:
    figure, panels = _figure(2, 2, (11.0, 6.6))
    for axes, (key, name) in zip([*panels[0], *panels[1]], NAMES.items(), strict=True):
        for report, colour in zip(reports, _COLOURS, strict=False):
            values = [value for job in report.jobs if (value := MEASURES[key](job)) is not None]
            _draw_shares(axes, values, label=report.policy, colour=colour)
        axes.set_title(f"from submission to {name}" if key != "queue_wait" else name, fontsize=10, loc="left")
    longest = max(job.finished - job.submitted for report in reports for job in report.jobs)
    for axes in (*panels[0], *panels[1]):
        axes.set_xlim(_SHORTEST, max(1.0, 1.3 * longest))
    for axes in panels[1]:
        axes.set_xlabel("time", fontsize=9)
    for row in panels:
        row[0].set_ylabel("share of the jobs, %", fontsize=9)
    panels[1][1].legend(fontsize=9, frameon=False, loc="upper left")  # where no curve can be
    figure.suptitle(title, fontsize=11)
    return figure


def _draw_shares(axes: Axes, values: Sequence[float], *, label: str, colour: str) -> None:
    ordered = sorted(max(value, _SHORTEST) for value in values)
    shares = [100 * (index + 1) / len(ordered) for index in range(len(ordered))]
    axes.step([_SHORTEST, *ordered, 1e9], [0.0, *shares, 100.0], where="post", color=colour, label=label, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xticks(list(_TICKS), list(_TICKS.values()))
    axes.minorticks_off()
    axes.set_ylim(0, 101)


def _day(reports: Sequence[Report], title: str) -> Figure:
    figure, panels = _figure(2, 1, (11.0, 6.0))
    (line,), (busy,) = panels
    for report, colour in zip(reports, _COLOURS, strict=False):
        hours = [(index + 0.5) * WINDOW / 3600 for index in range(len(report.waiting))]
        line.plot(hours, report.waiting, color=colour, label=report.policy, linewidth=1.4)
        busy.plot(hours, [100 * share for share in utilisation(report)], color=colour, linewidth=1.4)
    line.set_title("jobs that wait in the queue", fontsize=10, loc="left")
    line.set_ylabel("jobs", fontsize=9)
    line.legend(fontsize=9, frameon=False, loc="upper left")
    busy.set_title("devices at work", fontsize=10, loc="left")
    busy.set_ylabel("share of the fleet, %", fontsize=9)
    busy.set_xlabel("hours from the beginning", fontsize=9)
    for axes in (line, busy):
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    figure.suptitle(title, fontsize=11)
    return figure


def _tenants(summaries: Sequence[Summary], title: str) -> Figure:
    figure, ((left, right),) = _figure(1, 2, (11.0, 4.2))
    names = list(summaries[0].tenants)
    _draw_bars(left, names, [[one.tenants[name].slowdown for name in names] for one in summaries], summaries)
    left.set_title("slowdown by tenant", fontsize=10, loc="left")
    left.set_ylabel("time in the system / time alone", fontsize=9)
    left.legend(fontsize=8, frameon=False)
    levels = list(summaries[0].by_priority)
    _draw_bars(right, levels, [[_first_refined(one, level) for level in levels] for one in summaries], summaries)
    right.set_title("first refined frame by priority: median", fontsize=10, loc="left")
    right.set_ylabel("seconds", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def _first_refined(summary: Summary, priority: str) -> float:
    found = summary.by_priority[priority].get("first_refined")
    return found.p50 if found else 0.0


def _draw_bars(
    axes: Axes, names: Sequence[str], values: Sequence[Sequence[float]], summaries: Sequence[Summary]
) -> None:
    width = 0.8 / len(values)
    for index, (row, colour) in enumerate(zip(values, _COLOURS, strict=False)):
        places = [place - 0.4 + (index + 0.5) * width for place in range(len(names))]
        axes.bar(places, row, width=width, color=colour, label=summaries[index].policy)
    axes.set_xticks(range(len(names)), list(names))
    axes.grid(visible=False, axis="x")


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.grid(visible=True, color="#e8e8e8", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, [list(row) for row in panels]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
