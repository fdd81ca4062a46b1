"""Reports as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from models.bench.report import EnginesReport, Figure, Net, NotRun, PipelineReport, Quality, Way
from models.engine import Precision


def of_engines(report: EnginesReport) -> Iterator[Table | str]:
    """Machine and peaks, a table for each net, what `auto` takes, what was not run."""
    yield _machine(report)
    yield "peaks: " + ", ".join(f"{peak.precision} {_rate(peak.flops)}" for peak in report.peaks)
    for net in report.nets:
        yield _net_table(report, net)
    yield from defaults(report)
    yield from _not_run(report.not_run)


def defaults(report: EnginesReport) -> Iterator[str]:
    """A line for each net: what `auto` takes, and how it stands to diffusers in float32 and to the bfloat16 peak."""
    flops = {net.name: net.flops for net in report.nets}
    top = report.peak(Precision.BF16)
    for default in report.defaults:
        title = f"{default.contender} {default.precision}"
        yield f"{default.net}: auto takes {title}: {default.reason}"
        for one in (figure for figure in report.figures if (figure.net, figure.title) == (default.net, title)):
            share = None if top is None else one.rows_per_second * flops[one.net] / top
            yield (
                f"  {one.bucket} rows: {_times(one.over_diffusers)} diffusers fp32 (wanted 4.5), "
                f"{_percent(share)} of the bf16 peak (wanted 70 %)"
            )


def of_pipeline(report: PipelineReport) -> Iterator[Table | str]:
    """Machine, components, whole jobs, factors, what is known of the samplers, what was not run."""
    yield _machine(report)
    yield _components(report)
    yield from dict.fromkeys(f"{one.net}: {one.note}" for one in report.components if one.way == "auto")
    for frames in dict.fromkeys(way.frames for way in report.ways):
        yield _ways(report, frames)
        yield _factors(report, frames)
    if report.checks:
        yield _checks(report)
    yield _qualities(report.qualities)
    yield from _said(report)
    yield from _not_run(report.not_run)


def _machine(report: EnginesReport | PipelineReport) -> str:
    one = report.origin.machine
    return f"{one.cpu} ({one.capability}, {one.threads} of {one.cores} cores), {one.device}; {report.origin.command}"


def _net_table(report: EnginesReport, net: Net) -> Table:
    size = "" if net.tokens is None else f", width {net.width} x depth {net.depth}, {net.tokens} tokens"
    title = f"{net.name} ({net.weights} weights{size}, {net.flops / 1e9:.4g} GFLOP a row)"
    table = Table("engine", "rows", "ms", "rows/s", "of peak", "error", "x torch", "x diffusers", title=title)
    table.columns[0].no_wrap = True
    chosen = {(one.net, f"{one.contender} {one.precision}") for one in report.defaults}
    mine = [figure for figure in report.figures if figure.net == net.name]
    for bucket in dict.fromkeys(figure.bucket for figure in mine):
        for figure in sorted((one for one in mine if one.bucket == bucket), key=lambda one: -one.rows_per_second):
            mark = " (auto)" if (figure.net, figure.title) in chosen else ""
            table.add_row(*_cells(figure, mark))
        table.add_section()
    return table


def _cells(figure: Figure, mark: str) -> tuple[str, ...]:
    return (
        figure.title + mark,
        str(figure.bucket),
        f"{1000 * figure.seconds:.4g}",
        f"{figure.rows_per_second:.4g}",
        _percent(figure.of_peak),
        "" if figure.error is None else f"{figure.error:.1e}",
        _times(figure.over_torch),
        _times(figure.over_diffusers),
    )


def _components(report: PipelineReport) -> Table:
    table = Table("way", "net", "engine", "rows", "ms", "GFLOP", "GFLOP/s", title="one run of a net, measured")
    for one in report.components:
        giga = one.flops / 1e9
        times = f"{1000 * one.seconds:.4g}", f"{giga:.4g}", f"{giga / one.seconds:.0f}"
        net = f"{one.net} ({one.note})" if one.way == one.net else one.net
        table.add_row(one.way, net, one.engine, str(one.bucket), *times)
    return table


def _ways(report: PipelineReport, frames: int) -> Table:
    columns = ("way", "mode", "sampler", "steps", "grids", "runs", "TFLOP", "seconds")
    table = Table(*columns, title=f"{frames} frames: measured runs, multiplied out")
    table.columns[0].no_wrap = True
    for one in (way for way in report.ways if way.frames == frames):
        table.add_row(*_way_cells(one))
    return table


def _way_cells(one: Way) -> tuple[str, ...]:
    return (
        one.name,
        one.mode,
        f"{one.sampler}, {one.spacing}",
        f"{one.coarse_steps} + {one.refine_steps}",
        str(one.grids),
        "\n".join(f"{count} {net}" for net, count in one.runs.items()),
        f"{one.flops / 1e12:.4g}",
        f"{one.seconds:.4g}",
    )


def _factors(report: PipelineReport, frames: int) -> Table:
    table = Table("factor", "times as fast", "wanted", "times fewer FLOPs", "from", "to", title=f"{frames} frames")
    table.columns[0].no_wrap = True
    for one in (factor for factor in report.factors if factor.frames == frames):
        wanted = "" if one.wanted is None else f">= {one.wanted:g}"
        table.add_row(one.name, f"{one.ratio:.2f}", wanted, f"{one.flops:.2f}", one.before, one.after)
    return table


def _checks(report: PipelineReport) -> Table:
    title = "whole jobs, really run"
    table = Table("way", "frames", "steps", "s, multiplied out", "s, measured", title=title)
    for one in report.checks:
        steps = f"{one.coarse_steps} + {one.refine_steps}"
        table.add_row(one.way, str(one.frames), steps, f"{one.multiplied:.3g}", f"{one.measured:.3g}")
    return table


def _qualities(qualities: Sequence[Quality]) -> Table:
    title = "what fewer steps cost: errors on a model with a known answer (docs/sampling.md)"
    table = Table("mode", "sampler", "spacing", "calls", "one grid", "56 frames", title=title)
    for one in qualities:
        table.add_row(one.mode, one.sampler, one.spacing, str(one.steps), f"{one.one_grid:.3f}", f"{one.sequence:.3f}")
    return table


def _said(report: PipelineReport) -> Iterator[str]:
    if report.gate:
        passed = "passed" if report.gate.get("passed") else "NOT passed"
        yield f"the bundle's quality gate: {passed} ({report.gate.get('sequences')} sequences; docs/evaluation.md)"
    else:
        yield "no quality gate: the weights are random, or the bundle was never measured"
    if report.largest_difference is not None:
        yield f"same frames from the released way and from ours: largest difference {report.largest_difference:.1e}"


def _not_run(missing: Iterable[NotRun]) -> Iterator[str]:
    """Those with one reason in one line."""
    by_reason: dict[str, list[str]] = {}
    for one in missing:
        by_reason.setdefault(one.why, []).append(one.what)
    for why, what in by_reason.items():
        yield f"not run: {'; '.join(what)}: {why}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _rate(flops: float) -> str:
    return f"{flops / 1e9:.0f} GFLOP/s" if flops < 1e13 else f"{flops / 1e12:.0f} TFLOP/s"
