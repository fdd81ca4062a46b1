"""`gridit sample` and `gridit compile`: models at work without any service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn

from models.terminal import DEMO, console, progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.spec import Stage

app = typer.Typer(no_args_is_help=True, help="Draw sequences and compile engines.")


@app.command(name="compile")
def compile_(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle, e.g. models/bundles/demo.")],
    engine: Annotated[Literal["tensorrt", "openvino"], typer.Option(help="The engine to compile for.")] = "tensorrt",
    target: Annotated[
        str, typer.Option(help="GPUs to build for, such as sm89 or sm86,sm89; current: this machine's.")
    ] = "current",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "fp8", "int8"] | None,
        typer.Option(help="What the nets compute in; left out: fp16 with tensorrt, fp32 with openvino."),
    ] = None,
    buckets: Annotated[str, typer.Option(help="Batch sizes to run.")] = "1,2,4,8,16,32",
    profiles: Annotated[
        Literal["per-bucket", "one"], typer.Option(help="Tune each batch size by itself, or one range of them.")
    ] = "per-bucket",
    data: Annotated[
        Path | None, typer.Option(help="Real sequences that fp8 and int8 are judged by, where the bundle needs some.")
    ] = None,
    on_damage: Annotated[
        Literal["refuse", "rebuild"], typer.Option(help="What to do about a cached plan that was changed.")
    ] = "refuse",
) -> None:
    """Build an engine's plans of every net of a bundle into the engine cache (GRIDIT_ENGINE_CACHE)."""
    from models.builds import building
    from models.builds import compile as compiling
    from models.compiling.build import OnDamage
    from models.compiling.orders import Profiles
    from models.engine import Precision

    chosen = Precision(precision or compiling.PRECISIONS[engine])
    with compiling.told():
        building.forgive(bundle, engine=engine, precision=chosen)
        facts = compiling.compile_bundle(
            bundle,
            engine=engine,
            targets=compiling.targets_of(target),
            precision=chosen,
            buckets=compiling.buckets_of(buckets),
            profiles=Profiles(profiles),
            data=data,
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
    spacing: Annotated[str | None, typer.Option(help="linear, trailing or log_snr.")] = None,
    mode: Annotated[Literal["sound", "official"], typer.Option(help="official: as the published code does.")] = "sound",
    slow_motion: Annotated[int, typer.Option(min=1, help="Draw so many frames where there was one.")] = 1,
    cache: Annotated[int, typer.Option(min=1, help="Compute the nets' deep features at every n-th step only.")] = 1,
    reference: Annotated[
        Path | None, typer.Option(help="Go on from your own frames: a picture, a video or a folder of pictures.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the frames and the video.")] = Path("out/sample"),
) -> None:
    """Draw one sequence without any service: PNG frames of every stage, and a video."""
    from models import alone, drawing
    from models import bundle as bundles
    from models.data.reference import first_frames
    from models.media import to_pixels, to_unit
    from models.plan import frames_made
    from models.spec import Mode

    loaded = bundles.load(bundle)
    given = None
    if reference is not None:
        given = first_frames(reference, most=loaded.spec.grid**2, size=loaded.spec.coarse_size)
    wishes: dict[str, int | float | str | None] = {
        "num_frames": num_frames,
        "coarse_steps": coarse_steps,
        "refine_steps": refine_steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler,
        "spacing": spacing,
        "slow_motion": slow_motion,
        "cache": cache,
        "reference_frames": None if given is None else len(given),
    }
    request = drawing.request(loaded.spec, seed=seed, class_name=label, wishes=wishes, mode=Mode(mode))
    total = frames_made(request)
    with progress_bar(MofNCompleteColumn()) as progress:
        bars = {stage: progress.add_task(stage, total=total) for stage in loaded.spec.stages}
        drawn = alone.frames(
            loaded.spec,
            request,
            nets=alone.evaluators(loaded),
            reference=None if given is None else to_unit(given),
        )
        for stage, which, frames in drawn:
            _write_frames(out / stage, to_pixels(frames, bits=loaded.spec.bits), first=which.start)
            progress.advance(bars[stage], len(which))
    _write_video(out, stage=request.last, frames=total, fps=loaded.spec.defaults.fps)
    if loaded.spec.bits == 16:
        _write_stack(out, stage=request.last, frames=total, value_range=loaded.spec.value_range)
    console.print(f"{out}: {total} frames ({', '.join(bars)}), and a video of them")


def _write_frames(folder: Path, frames: NDArray[Any], *, first: int) -> None:
    """Frames (n, H, W, 3), or (n, H, W) of 16 bits, as 0000.png and on, counted from `first`."""
    from models.media import png

    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames, start=first):
        (folder / f"{index:04d}.png").write_bytes(png.encode(frame))


def _write_video(folder: Path, *, stage: Stage, frames: int, fps: int) -> None:
    """The frames of one stage as video.mp4."""
    from models.media import mp4, png

    files = (folder / stage / f"{index:04d}.png" for index in range(frames))
    (folder / "video.mp4").write_bytes(mp4.encode((png.decode(file.read_bytes()) for file in files), fps=fps))


def _write_stack(folder: Path, *, stage: Stage, frames: int, value_range: tuple[float, float] | None) -> None:
    """The frames of one stage as frames.npz, without loss."""
    from models.media import npz, png

    files = (folder / stage / f"{index:04d}.png" for index in range(frames))
    stack = npz.encode((png.decode_deep(file.read_bytes()) for file in files), value_range=value_range)
    (folder / "frames.npz").write_bytes(stack)
