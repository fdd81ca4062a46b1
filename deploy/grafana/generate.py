"""The Grafana dashboard as code: `python deploy/grafana/generate.py` writes dashboards/gridit.json.

One row a question: what a viewer feels, where the time goes, what waits, what runs. Every query first sums over
processes, so any number of API and worker processes reads right; quantiles come from summed buckets. A queue's depth
is one fact that each API process reports, so it is never summed. Edit here, not in Grafana.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, Threshold, ThresholdsMode

OUTPUT = Path(__file__).resolve().parent / "dashboards" / "gridit.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WINDOW = "$__rate_interval"
SPAN = 6  # of the grid's 24 columns: four panels beside each other


@dataclass(frozen=True)
class Query:
    """PromQL and the name of its lines."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Chart:
    """Lines over time. `warn` and `bad` draw the levels at which someone should look, and act."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    warn: float | None = None
    bad: float | None = None
    stacked: bool = False


@dataclass(frozen=True)
class Number:
    """The value now. `floor` is the least that is well; without it any value is."""

    title: str
    unit: str
    description: str
    query: Query
    floor: float | None = None


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Chart | Number, ...]


def quantile(q: float, metric: str, *, by: str = "", where: str = "") -> str:
    """The q-quantile of a histogram over all processes, one line for each value of `by`."""
    labels = f"le, {by}" if by else "le"
    selector = f"{{{where}}}" if where else ""
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{selector}[{WINDOW}])))"


def p50_and_p95(metric: str, *, by: str = "", where: str = "") -> tuple[Query, Query]:
    name = f"{{{{{by}}}}} " if by else ""
    return (
        Query(quantile(0.5, metric, by=by, where=where), f"{name}p50"),
        Query(quantile(0.95, metric, by=by, where=where), f"{name}p95"),
    )


def rate(metric: str, *, by: str) -> Query:
    return Query(f"sum by ({by}) (rate({metric}[{WINDOW}]))", f"{{{{{by}}}}}")


ROWS = (
    Row(
        "What a viewer feels",
        (
            Chart(
                "Time to first frame: coarse",
                "s",
                "From the accepted request to the first small frame of the sequence. Rises first when workers are few: "
                "a new job's coarse pass goes before the backlog of refinement.",
                p50_and_p95("gridit_time_to_first_frame_seconds", where='stage="coarse"'),
                warn=10,
                bad=30,
            ),
            Chart(
                "Time to first frame: refined",
                "s",
                "From the accepted request to the first frame at full size.",
                p50_and_p95("gridit_time_to_first_frame_seconds", where='stage="refined"'),
                warn=30,
                bad=120,
            ),
            Chart(
                "Frame interval",
                "s",
                "Time between one frame of a job and its next. Playback at f frames a second stays smooth below 1/f.",
                p50_and_p95("gridit_frame_interval_seconds", by="stage"),
            ),
            Chart(
                "Job time",
                "s",
                "From the accepted request to the terminal event.",
                p50_and_p95("gridit_job_duration_seconds"),
                warn=300,
                bad=900,
            ),
        ),
    ),
    Row(
        "Where the time goes",
        (
            Chart(
                "Stage duration (p95)",
                "s",
                "How long a job spends in each stage; refinement of finished grids overlaps later grids.",
                (Query(quantile(0.95, "gridit_stage_duration_seconds", by="stage"), "{{stage}}"),),
            ),
            Chart(
                "Denoise step",
                "s",
                "One forward of a batch through the network, by stage. A rise without larger batches is a slow device.",
                p50_and_p95("gridit_denoise_step_seconds", by="stage"),
            ),
            Chart(
                "Batch size",
                "short",
                "Mean rows in a forward. Rows of several jobs share one; near 1 under load nothing is shared.",
                (
                    Query(
                        f"sum by (stage) (rate(gridit_batch_size_sum[{WINDOW}]))"
                        f" / sum by (stage) (rate(gridit_batch_size_count[{WINDOW}]))",
                        "{{stage}}",
                    ),
                ),
            ),
            Chart(
                "Rows evaluated",
                "suffix: rows/s",
                "Rows a second through the networks: the work done, whatever its split into batches.",
                (Query(f"sum by (stage) (rate(gridit_batch_size_sum[{WINDOW}]))", "{{stage}}"),),
                stacked=True,
            ),
            Chart(
                "Batches, by why they were closed",
                "suffix: batches/s",
                "full: the largest bucket. no_more: nothing else waits for that network. cheaper: a smaller bucket now "
                "and the rest later costs less than padding. alone: a job that made a batch fail.",
                (rate("gridit_batch_stop_total", by="reason"),),
                stacked=True,
            ),
            Chart(
                "Batches that failed, by remedy",
                "suffix: batches/s",
                "smaller: out of memory, so the network's largest bucket is halved until the worker restarts. split: "
                "its jobs go on one by one. again: the job at fault starts its unit again. none: that job has failed.",
                (rate("gridit_batch_failures_total", by="remedy"),),
                stacked=True,
            ),
            Chart(
                "Engines that serve",
                "short",
                "Machines that serve a network by this engine in this precision. It follows when a worker goes over "
                "to an engine that was compiled meanwhile.",
                (
                    Query(
                        "sum by (stage, engine, precision) (gridit_engine_info)", "{{stage}} {{engine}} {{precision}}"
                    ),
                ),
                stacked=True,
            ),
            Chart(
                "Networks on the fallback",
                "short",
                "Served by another engine than they should be: the better one is being compiled, or that has failed; "
                "/v1/models says which and why.",
                (Query("sum by (model, stage) (gridit_engine_fallback)", "{{model}} {{stage}}"),),
                stacked=True,
            ),
            Chart(
                "Engines compiled beside the work, in the last hour",
                "short",
                "Compilations by how they ended. One that failed as often as the settings allow is not tried again.",
                (
                    Query(
                        "sum by (engine, outcome) (increase(gridit_engine_build_seconds_count[1h]))",
                        "{{engine}} {{outcome}}",
                    ),
                ),
            ),
        ),
    ),
    Row(
        "What waits",
        (
            Chart(
                "Queue depth",
                "short",
                "Jobs accepted and not yet claimed. Every API process reports the same queue, so this is a maximum.",
                (Query("max by (queue) (gridit_queue_depth)", "{{queue}}"),),
                stacked=True,
            ),
            Chart(
                "Queue wait",
                "s",
                "From the accepted request to the first claim by a worker.",
                p50_and_p95("gridit_queue_wait_seconds"),
                warn=30,
                bad=120,
            ),
            Chart(
                "Jobs ended, by status",
                "suffix: jobs/s",
                "Terminal events a second. Each accepted job ends in exactly one.",
                (rate("gridit_jobs_total", by="status"),),
                stacked=True,
            ),
            Chart(
                "Requests rejected",
                "suffix: requests/s",
                "Refused before anything was queued, by error code. queue_full asks for more workers.",
                (rate("gridit_jobs_rejected_total", by="reason"),),
                stacked=True,
            ),
        ),
    ),
    Row(
        "What runs",
        (
            Number(
                "Workers up",
                "short",
                "Worker processes that are ready to take jobs.",
                Query("sum(gridit_worker_up)", "workers"),
                floor=1,
            ),
            Number(
                "Stream clients",
                "short",
                "Readers that follow a job's events now, over all API processes.",
                Query("sum(gridit_stream_clients)", "clients"),
            ),
            Chart(
                "Frames published",
                "suffix: frames/s",
                "Frames a second that viewers can fetch, by stage.",
                (rate("gridit_frames_total", by="stage"),),
            ),
            Chart(
                "Age of the last heartbeat and progress",
                "s",
                "The worst worker. Old heartbeat: dead. Fresh heartbeat and old progress under load: stuck.",
                (
                    Query("max(time() - gridit_worker_heartbeat_timestamp_seconds)", "heartbeat"),
                    Query("max(time() - gridit_worker_progress_timestamp_seconds)", "progress"),
                ),
                warn=30,
                bad=120,
            ),
        ),
    ),
)


def thresholds(*, warn: float | None, bad: float | None) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    steps += [Threshold(value=warn, color="orange")] if warn is not None else []
    steps += [Threshold(value=bad, color="red")] if bad is not None else []
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def targets(queries: tuple[Query, ...]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .ref_id(chr(ord("A") + place))
        .datasource(SOURCE)
        .expr(query.expr)
        .legend_format(query.legend)
        for place, query in enumerate(queries)
    ]


def chart_panel(chart: Chart) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(chart.title)
        .description(chart.description)
        .unit(chart.unit)
        .datasource(SOURCE)
        .min(0)
        .span(SPAN)
        .height(8)
        .line_width(2)
        .fill_opacity(30 if chart.stacked else 8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .thresholds(thresholds(warn=chart.warn, bad=chart.bad))
    )
    if chart.warn is not None:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if chart.stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    for target in targets(chart.queries):
        panel.with_target(target)
    return panel


def number_panel(number: Number) -> stat.Panel:
    steps = [Threshold(value=None, color="blue")]
    if number.floor is not None:
        steps = [Threshold(value=None, color="red"), Threshold(value=number.floor, color="green")]
    return (
        stat.Panel()
        .title(number.title)
        .description(number.description)
        .unit(number.unit)
        .datasource(SOURCE)
        .span(SPAN)
        .height(8)
        .color_mode(BigValueColorMode.VALUE)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(targets((number.query,))[0])
    )


def build() -> dashboard.Dashboard:
    board = (
        dashboard.Dashboard("GriDiT Serve")
        .uid("gridit-serve")
        .description("Long image sequences: first frames, steady frames, and the workers that make them.")
        .tags(["gridit"])
        .readonly()
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    ids = count(1)
    for row in ROWS:
        board.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            built = chart_panel(panel) if isinstance(panel, Chart) else number_panel(panel)
            board.with_panel(built.id(next(ids)))
    return board


def render() -> str:
    """The dashboard's JSON, the same bytes each time."""
    return JSONEncoder(sort_keys=True, indent=2).encode(build().build()) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(render(), encoding="utf-8")
    print(f"{OUTPUT}: {sum(len(row.panels) for row in ROWS)} panels")
