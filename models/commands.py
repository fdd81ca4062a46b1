"""`gridit train`, `gridit sample`, `gridit evaluate` and `gridit compile`: models at work without any service."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from models.drawing import Frames
    from models.train.recipe import Recipe

app = typer.Typer(no_args_is_help=True, help="Train, sample and measure bundles.")
DEMO = Path(__file__).parent / "bundles" / "demo"
"""The bundle that ships."""
_console = Console(stderr=True)
_TRAINING = (MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"), TimeRemainingColumn())


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="Which recipe: demo-coarse or demo-refine.")],
    runs: Annotated[Path, typer.Option(help="Where runs are kept, each in a folder of its own.")] = Path("runs"),
    steps: Annotated[int | None, typer.Option(min=0, help="Stop after so many more steps.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    finish: Annotated[
        int | None, typer.Option(min=1, help="Let the learning rate fall to zero from here on, over so many steps.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads; they change no bit of the result.")] = 2,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the forward pass.")] = "fp32",
    bundle: Annotated[
        Path | None, typer.Option(help="When done, write the nets of both runs there (with --steps 0: at once).")
    ] = None,
) -> None:
    """Train one net of a bundle, or go on where its run was left."""
    import torch

    from models.train.batches import load
    from models.train.session import Budget, Session

    torch.set_num_threads(1)  # the loop has threads of its own, one for each part of a batch
    recipe = _recipe(preset, precision)
    session = Session(runs / recipe.name)
    training = session.open(recipe)
    if finish is not None:
        training.plan = training.plan.finish(training.step, within=finish)
    budget = Budget(steps=steps, minutes=minutes)
    if not budget.is_spent(done=0):
        data = load(recipe, runs / "clips")
        with _asked_to_stop() as asked, _progress(*_TRAINING) as progress:
            bar = progress.add_task(recipe.name, total=training.plan.steps, completed=training.step, loss=float("nan"))
            first, advancing = training.step, session.advance(training, data=data, threads=threads)
            for step in advancing:
                progress.update(bar, completed=step.step, loss=step.loss)
                if asked.is_set() or budget.is_spent(done=step.step - first):
                    break
            advancing.close()
    _console.print(f"{session.folder}: {training.step} of {training.plan.steps} steps done")
    if bundle is not None:
        _assemble(runs, preset, bundle)


@app.command(name="compile")
def compile_(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle, e.g. models/bundles/demo.")],
    engine: Annotated[Literal["tensorrt"], typer.Option(help="The engine to compile for.")] = "tensorrt",
    target: Annotated[
        str, typer.Option(help="GPUs to build for, such as sm89 or sm86,sm89; current: this machine's.")
    ] = "current",
    precision: Annotated[Literal["fp16", "bf16"], typer.Option(help="What the nets compute in.")] = "fp16",
    buckets: Annotated[str, typer.Option(help="Batch sizes to run.")] = "1,2,4,8,16,32",
    profiles: Annotated[
        Literal["per-bucket", "one"], typer.Option(help="Tune each batch size by itself, or one range of them.")
    ] = "per-bucket",
    on_damage: Annotated[
        Literal["refuse", "rebuild"], typer.Option(help="What to do about a cached plan that was changed.")
    ] = "refuse",
) -> None:
    """Build TensorRT plans of both nets of a bundle into the engine cache (GRIDIT_ENGINE_CACHE)."""
    from models import compile as compiling
    from models.build import OnDamage, Profiles
    from models.engines import Precision

    with compiling.told():
        facts = compiling.compile_bundle(
            bundle,
            engine=engine,
            targets=compiling.targets_of(target),
            precision=Precision(precision),
            buckets=compiling.buckets_of(buckets),
            profiles=Profiles(profiles),
            on_damage=OnDamage(on_damage),
        )
        compiling.show(facts, console=Console())


@app.command()
def sample(
    bundle: Annotated[Path, typer.Argument(help="A bundle's directory; left out: the one that ships.")] = DEMO,
    label: Annotated[str | None, typer.Option("--class", help="What to draw; left out: whatever comes.")] = None,
    num_frames: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    coarse_steps: Annotated[int | None, typer.Option(min=1)] = None,
    refine_steps: Annotated[int | None, typer.Option(min=1)] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=1)] = None,
    sampler: Annotated[str | None, typer.Option(help="A sampler of the bundle.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the frames and the video.")] = Path("out/sample"),
) -> None:
    """Draw one sequence without any service: PNG frames of both stages, and a video."""
    from models import alone, drawing
    from models import bundle as bundles
    from models.media import to_uint8
    from models.spec import Stage

    loaded = bundles.load(bundle)
    wishes = {
        "num_frames": num_frames,
        "coarse_steps": coarse_steps,
        "refine_steps": refine_steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler,
    }
    request = drawing.request(loaded.spec, seed=seed, class_name=label, wishes=wishes)
    with _progress(MofNCompleteColumn()) as progress:
        bars = {stage: progress.add_task(stage, total=request.num_frames) for stage in Stage}
        for stage, which, frames in alone.frames(loaded.spec, request, nets=alone.evaluators(loaded)):
            _write_frames(out / stage, to_uint8(frames), first=which.start)
            progress.advance(bars[stage], len(which))
    _write_video(out, frames=request.num_frames, fps=loaded.spec.defaults.fps)
    _console.print(f"{out}: {request.num_frames} coarse and refined frames, and a video of them")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle's directory; left out: the one that ships.")] = DEMO,
    n: Annotated[int, typer.Option("--n", min=2, help="Sequences to draw per class.")] = 32,
    frames: Annotated[int, typer.Option(min=17, help="Frames of each.")] = 64,
    out: Annotated[Path, typer.Option(help="Folder for the report and the contact sheets.")] = Path("out/evaluate"),
    *,
    record: Annotated[bool, typer.Option("--record", help="Write the figures into the bundle too.")] = False,
) -> None:
    """The quality gate: draw sequences of every class, measure them against real ones; status 1 if they fail."""
    import json

    from models import alone
    from models import bundle as bundles
    from models.evaluate import run
    from models.evaluate.report import corruption_table, figure_table
    from models.media import png

    loaded = bundles.load(bundle)
    nets = alone.evaluators(loaded)
    drawn: dict[str, list[run.Drawn]] = {}
    with _progress(MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        for name in loaded.spec.classes:
            drawing = run.sequences(loaded.spec, name, nets=nets, count=n, frames=frames)
            drawn[name] = list(progress.track(drawing, total=n, description=name))
    out.mkdir(parents=True, exist_ok=True)
    for name, sheet in run.sheets(drawn):
        (out / f"{name}.png").write_bytes(png.encode(sheet))
    with _console.status("measuring"):
        report = run.judge(loaded, drawn, nets=nets)
    (out / "gate.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    _console.print(figure_table(report), corruption_table(report))
    if record:
        bundles.annotate(loaded, gate=run.summary(report, sequences=n, frames=frames))
    _console.print(f"{out}: gate.json and contact sheets; the gate is {'passed' if report.passed else 'NOT passed'}")
    raise typer.Exit(0 if report.passed else 1)


def _recipe(preset: str, precision: str) -> Recipe:
    from models.engines import Precision
    from models.train.recipe import PRESETS

    if preset not in PRESETS:
        raise typer.BadParameter(f"{preset!r} is unknown; there are: {', '.join(PRESETS)}", param_hint="preset")
    return PRESETS[preset].model_copy(update={"precision": Precision(precision)})


def _assemble(runs: Path, preset: str, path: Path) -> None:
    """Both runs of the family that `preset` belongs to (demo-coarse, demo-refine) become the bundle `demo`."""
    from models.spec import Stage
    from models.train.assemble import assemble
    from models.train.session import Session

    family = preset.rsplit("-", 1)[0]
    trainings = {stage: Session(runs / f"{family}-{stage}").reopen() for stage in Stage}
    written = assemble(trainings, path, name=family)
    _console.print(f"{path}: bundle {written.spec.name}, hash {written.hash[:12]}")


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by the first interrupt or request to end, so that a step in progress is finished and saved."""
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_frames(folder: Path, frames: Frames, *, first: int) -> None:
    """Frames (n, H, W, 3) as 0000.png and on, counted from `first`."""
    from models.media import png

    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames, start=first):
        (folder / f"{index:04d}.png").write_bytes(png.encode(frame))


def _write_video(folder: Path, *, frames: int, fps: int) -> None:
    """The refined frames of a folder as video.mp4."""
    from models.media import mp4, png

    files = (folder / "refine" / f"{index:04d}.png" for index in range(frames))
    (folder / "video.mp4").write_bytes(mp4.encode((png.decode(file.read_bytes()) for file in files), fps=fps))


def _progress(*columns: ProgressColumn) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=_console)
