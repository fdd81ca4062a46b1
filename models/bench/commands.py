"""`gridit bench engines` and `gridit bench pipeline`: how fast this machine is, and what that is compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import TimeElapsedColumn

from models.terminal import DEMO, progress_bar

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from models.bench.report import Report
    from models.bundle import Bundle
    from models.spec import BundleSpec

app = typer.Typer(add_completion=False)
group = typer.Typer(no_args_is_help=True, help="Measure this machine: engines beside others, the whole pipeline.")
app.add_typer(group, name="bench")

_Result = TypeVar("_Result")
WIDTH = 110
"""Columns that tables take where a terminal does not say how many it has."""

BundlePath = Annotated[Path | None, typer.Argument(help="A bundle's directory; left out: --shape, or the one shipped.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write everything that was found there.")]
Plot = Annotated[Path | None, typer.Option(help="Draw it there, as a PNG file (extra: evaluate).")]
Rounds = Annotated[int, typer.Option(min=1, help="Interleaved rounds; medians are kept.")]
Tokens = Annotated[int | None, typer.Option(help="Of the nets of --shape; left out: 256 on a CPU, 1024 on a GPU.")]
CPU = "cpu"


@group.command()
def engines(
    bundle: BundlePath = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="A published size with random weights: S/2, XL/2; more than one is fine.")
    ] = None,
    tokens: Tokens = None,
    net: Annotated[str, typer.Option("--nets", help="coarse, refine, encoder, decoder; those there are.")] = "",
    buckets: Annotated[
        str | None, typer.Option(help="Rows of a run; left out: 1,4 on a CPU, 1,16,32 on a GPU.")
    ] = None,
    engine: Annotated[str, typer.Option("--engines", help="Such as torch,openvino; all: every one.")] = "all",
    precision: Annotated[str, typer.Option("--precisions", help="fp32, bf16, fp16, fp8, int8; all.")] = "all",
    peer: Annotated[str, typer.Option("--peers", help="diffusers, torch.compile, released loop; all or none.")] = "all",
    device: Device = "auto",
    rounds: Rounds = 7,
    peak_side: Annotated[int, typer.Option(min=64, help="Of the matrices that peaks are measured with.")] = 4096,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Every engine that runs here, beside diffusers, torch.compile and the released loop, in every bucket."""
    from models.bench import engines as benchmark
    from models.bench import machine, options, shapes, tables
    from models.devices import use

    _check(plot)
    place = use(device)
    gpu = place.type != CPU
    nets = options.nets_of(net, random=bool(shape))
    plan = benchmark.Plan(
        device=place,
        nets=nets.names,
        engines=options.engines_of(engine),
        precisions=options.precisions_of(precision),
        peers=options.peers_of(peer),
        buckets=options.numbers("--buckets", buckets or ("1,16,32" if gpu else "1,4")),
        rounds=rounds,
        peak_side=peak_side,
    )
    size = tokens or _tokens(place)
    downsample = shapes.DOWNSAMPLE if nets.halves else 1
    specs = [shapes.spec_of(one, tokens=size, stages=nets.stages, downsample=downsample) for one in shape or []]
    with _bundles(bundle, specs) as bundles:
        report = _follow(benchmark.run(plan, bundles, origin=machine.origin(place)))
    _out(report, tables.of_engines(report), json=json, plot=plot)


@group.command()
def pipeline(
    bundle: BundlePath = None,
    shape: Annotated[str, typer.Option(help="Without a bundle: this published size with random weights.")] = "S/2",
    tokens: Tokens = None,
    frames: Annotated[str, typer.Option(help="Lengths of the sequences.")] = "64,256",
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Of the released loop.")] = 250,
    engine: Annotated[
        str, typer.Option("--engines", help="Whose plans are made first, such as openvino; all; torch: none.")
    ] = "all",
    precision: Annotated[
        str, typer.Option("--precisions", help="Of these plans; left out: those that need no scales.")
    ] = "",
    buckets: Annotated[str, typer.Option(help="Rows of a run.")] = "1,2,4,8,16,32",
    device: Device = "auto",
    rounds: Rounds = 5,
    budget: Annotated[float, typer.Option(min=0, help="Seconds that whole jobs may take, all together.")] = 60.0,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Both stages of whole sequences: our way, the released way, and the direct way without factorization."""
    from models.bench import machine, options, shapes, tables
    from models.bench import pipeline as benchmark
    from models.devices import use

    _check(plot)
    place = use(device)
    plan = benchmark.Plan(
        device=place,
        frames=options.numbers("--frames", frames),
        steps=steps,
        engines=options.engines_of(engine),
        precisions=options.plain_or(precision, place),
        buckets=options.numbers("--buckets", buckets),
        rounds=rounds,
        budget=budget,
    )
    specs = [] if bundle else [shapes.spec_of(shape, tokens=tokens or _tokens(place))]
    with _bundles(bundle, specs) as ((loaded, weights),):
        report = _follow(benchmark.run(plan, loaded, weights=weights, origin=machine.origin(place)))
    _out(report, tables.of_pipeline(report), json=json, plot=plot)


@contextmanager
def _bundles(path: Path | None, specs: Sequence[BundleSpec]) -> Iterator[tuple[tuple[Bundle, str], ...]]:
    """The one named, and random ones that go afterwards; with neither the one that ships. Each with whose weights."""
    from models import bundle as bundles
    from models.bench import shapes

    own = ((bundles.load(path or DEMO), "its own"),) if path is not None or not specs else ()
    with tempfile.TemporaryDirectory() as folder:
        yield (*own, *((shapes.write(Path(folder), spec), "random") for spec in specs))


def _tokens(place: torch.device) -> int:
    """Of random nets: the published number on a GPU, what a CPU can do in a minute or two else."""
    return 256 if place.type == CPU else 1024


def _check(plot: Path | None) -> None:
    """Refuse now what would fail after minutes."""
    if plot is not None:
        from models.bench import plots

        plots.available()


def _follow(work: Generator[object, None, _Result]) -> _Result:
    """Drive a benchmark, saying what it does: in a line that changes, or in a log line by line."""
    with progress_bar(TimeElapsedColumn()) as progress:
        task = progress.add_task("", total=None)
        while True:
            try:
                doing = str(next(work))
                progress.update(task, description=doing)
                if not progress.console.is_terminal:
                    progress.console.print(doing, markup=False)
            except StopIteration as end:
                result: _Result = end.value
                return result


def _out(report: Report, shown: Iterable[Table | str], *, json: Path | None, plot: Path | None) -> None:
    from models.bench import plots
    from models.bench.report import write

    console = Console()
    console.width = max(console.width, WIDTH)
    for part in shown:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
    if json is not None:
        write(report, json)
    if plot is not None:
        plots.write(report, plot)
    for path in (path for path in (json, plot) if path is not None):
        console.print(f"{path} written", soft_wrap=True)
