"""`gridit sample` and `gridit compile`: models at work without any service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn

from models.terminal import DEMO, console, progress_bar

if TYPE_CHECKING:
    from models.drawing import Frames

app = typer.Typer(no_args_is_help=True, help="Draw sequences and compile engines.")


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
    with progress_bar(MofNCompleteColumn()) as progress:
        bars = {stage: progress.add_task(stage, total=request.num_frames) for stage in Stage}
        for stage, which, frames in alone.frames(loaded.spec, request, nets=alone.evaluators(loaded)):
            _write_frames(out / stage, to_uint8(frames), first=which.start)
            progress.advance(bars[stage], len(which))
    _write_video(out, frames=request.num_frames, fps=loaded.spec.defaults.fps)
    console.print(f"{out}: {request.num_frames} coarse and refined frames, and a video of them")


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
