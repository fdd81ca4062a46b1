"""Reports as pictures, by matplotlib (extra: evaluate), which is only loaded here."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.bench.report import EnginesReport, Factor, Figure, PipelineReport, Report, Way

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

_OURS, _AUTO, _PEER, _DIRECT = "#7aa6dc", "#1858b0", "#8a8a8a", "#c04020"
_BAR = 0.32
"""Inches of height for a bar."""


class NoPlots(ValueError):
    """The library that draws is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "--plot is drawn by matplotlib, which is not installed: pip install 'gridit-serve[evaluate]', "
            "or leave --plot out"
        )


def available() -> None:
    """Raise `NoPlots` now rather than after minutes of measuring."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise NoPlots from error


def write(report: Report, path: Path) -> None:
    """As a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = _engines(report) if isinstance(report, EnginesReport) else _pipeline(report)
    stream = io.BytesIO()
    picture.savefig(stream, format="png", dpi=110)
    path.write_bytes(stream.getvalue())


def _engines(report: EnginesReport) -> Picture:
    """A panel for each net and bucket; rows a second, with the share of the peak beside each bar."""
    panels = list(dict.fromkeys((one.net, one.bucket) for one in report.figures))
    bars = [[one for one in report.figures if (one.net, one.bucket) == panel] for panel in panels]
    picture, axes = _stack([len(each) for each in bars])
    for panel, (net, bucket), figures in zip(axes, panels, bars, strict=True):
        _bars(panel, report, sorted(figures, key=lambda one: one.rows_per_second))
        panel.set_title(f"{net}, {bucket} {'row' if bucket == 1 else 'rows'}", fontsize=9, loc="left")
    axes[-1].set_xlabel("rows a second (share of the measured peak of its precision; times diffusers fp32)", fontsize=8)
    picture.suptitle(_heading(report), fontsize=9)
    return picture


def _bars(panel: Axes, report: EnginesReport, figures: Sequence[Figure]) -> None:
    ours = {(one.net, f"{one.contender} {one.precision}") for one in report.defaults}
    colours = [_AUTO if (one.net, one.title) in ours else _colour(one) for one in figures]
    names = [one.title + (" (auto)" if (one.net, one.title) in ours else "") for one in figures]
    rates = [one.rows_per_second for one in figures]
    drawn = panel.barh(names, rates, color=colours, height=0.7)
    labels = [
        " ".join(
            part
            for part in (
                f"{one.rows_per_second:.3g}/s",
                "" if one.of_peak is None else f"({100 * one.of_peak:.0f} %)",
                "" if one.over_diffusers is None else f"{one.over_diffusers:.2f}x",
            )
            if part
        )
        for one in figures
    ]
    panel.bar_label(drawn, labels, fontsize=7, padding=3)
    panel.set_xlim(0, 1.28 * max(rates))
    _plain(panel)


def _colour(one: Figure) -> str:
    return _PEER if one.contender in ("diffusers", "torch.compile", "released loop") else _OURS


def _pipeline(report: PipelineReport) -> Picture:
    """A panel for each length; seconds of a whole job on a logarithmic axis, and what lies between neighbours."""
    lengths = list(dict.fromkeys(way.frames for way in report.ways))
    bars = [[way for way in report.ways if way.frames == frames] for frames in lengths]
    picture, axes = _stack([len(each) for each in bars])
    ours = {way.name for way in report.ways}
    for panel, frames, ways in zip(axes, lengths, bars, strict=True):
        factors = {one.after: one for one in report.factors if one.frames == frames and one.name in ours}
        _way_bars(panel, ways[::-1], factors)
        panel.set_title(f"{frames} frames, both stages", fontsize=9, loc="left")
    axes[-1].set_xlabel("seconds of one job, steps measured and multiplied out", fontsize=8)
    picture.suptitle(_heading(report), fontsize=9)
    return picture


def _way_bars(panel: Axes, ways: Sequence[Way], factors: Mapping[str, Factor]) -> None:
    colours = [_colour_of_way(way.name) for way in ways]
    names = [f"{way.name.partition(',')[0]} ({way.coarse_steps} + {way.refine_steps} steps)" for way in ways]
    drawn = panel.barh(names, [way.seconds for way in ways], color=colours, height=0.7)
    panel.bar_label(drawn, [_seconds_of(way, factors.get(way.name)) for way in ways], fontsize=7, padding=6)
    panel.set_xscale("log")
    panel.set_xlim(min(way.seconds for way in ways) / 3, 40 * max(way.seconds for way in ways))
    _plain(panel)


def _seconds_of(way: Way, factor: Factor | None) -> str:
    words = "" if factor is None else f": {factor.ratio:.1f} times as fast as {factor.before}"
    return f"{way.seconds:.4g} s{words}"


def _colour_of_way(name: str) -> str:
    if name.startswith("direct"):
        return _DIRECT
    return _PEER if name.startswith("released") else _OURS


def _plain(panel: Axes) -> None:
    panel.tick_params(labelsize=7)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _stack(bars: Sequence[int]) -> tuple[Picture, list[Axes]]:
    """Panels one above the other, as high as their bars need."""
    from matplotlib.figure import Figure as Empty

    heights = [_BAR * max(count, 1) + 0.55 for count in bars]
    picture = Empty(figsize=(9.0, sum(heights) + 0.8), layout="constrained")
    axes = picture.subplots(len(bars), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return picture, [row[0] for row in axes]


def _heading(report: Report) -> str:
    one = report.origin.machine
    where = one.device if one.device != "cpu" else f"{one.cpu}, {one.capability}, {one.threads} threads"
    return f"{where}; torch {report.origin.versions['torch']}"
