"""`gridit demo`, `gridit generate`, `gridit watch`."""

from __future__ import annotations

import base64
import mimetypes
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.client import Client, Video
from service.demo.display import first_frames, shown
from service.demo.folder import replacing
from service.demo.follow import FRAMES, JOB, Kept, follow, keep
from service.demo.local import service
from service.demo.pictures import contact_sheet, decode, save_gif
from service.demo.tally import Tally
from workers.contracts.errors import JobFailure
from workers.contracts.job import JobStatus, Stage

app = typer.Typer(add_completion=False)

DEFAULT_URL = "http://127.0.0.1:8000"
Out = Annotated[Path, typer.Option(help="Folder for the result; an older result there is replaced.")]
ClassName = Annotated[str | None, typer.Option("--class", "--prompt", help="Name of one of the model's classes.")]
NumFrames = Annotated[int, typer.Option(min=1, help="Length of the sequence.")]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same frames.")]
Url = Annotated[str, typer.Option(help="Where the service is.")]


class JobNotCompleted(JobFailure):
    """The job ended, but not with a whole sequence."""

    code = "job_not_completed"


@app.command()
def demo(
    out: Out = Path("out/demo"), class_name: ClassName = "sky", num_frames: NumFrames = 64, seed: Seed = 1
) -> None:
    """Start a service of its own, make one sequence over HTTP, keep it, stop everything."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways to ask for the end clean up
    console = _console()
    with replacing(out) as folder, ExitStack() as stack:
        began = time.monotonic()
        with (console if console.is_terminal else Console(quiet=True)).status("starting the service"):
            url = stack.enter_context(service())
        console.print(f"service ready in {time.monotonic() - began:.1f} s at {url}")
        client = stack.enter_context(Client(url))
        tally = _make(client, console, folder, prompt=class_name, num_frames=num_frames, seed=seed)
    _summary(console, tally, out)


@app.command()
def generate(
    url: Url = DEFAULT_URL,
    out: Out = Path("out/sequence"),
    class_name: ClassName = None,
    num_frames: NumFrames = 64,
    seed: Seed = None,
    model: Annotated[str | None, typer.Option(help="Absent: the service's default.")] = None,
    mode: Annotated[str | None, typer.Option(help="sound or official: as the published code does it.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each coarse grid.")] = None,
    sampler: Annotated[str | None, typer.Option(help="A sampler of the model.")] = None,
    spacing: Annotated[str | None, typer.Option(help="linear, trailing or log_snr.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=1)] = None,
    slow_motion: Annotated[int | None, typer.Option(min=1, help="So many frames where there was one.")] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="Go on from your own frames: pictures, in order, or a short video.")
    ] = None,
) -> None:
    """Make one sequence on a running service and keep it."""
    asked = {
        "prompt": class_name,
        "num_frames": num_frames,
        "seed": seed,
        "model": model,
        "mode": mode,
        "num_inference_steps": steps,
        "sampler": sampler,
        "spacing": spacing,
        "guidance_scale": guidance_scale,
        "slow_motion": slow_motion,
        "input_reference": [_data_url(path) for path in reference or ()] or None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    console = _console()
    with replacing(out) as folder, Client(url) as client:
        tally = _make(client, console, folder, **given)
    _summary(console, tally, out)


def _data_url(path: Path) -> str:
    """A file as a request carries it."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


@app.command()
def watch(video_id: Annotated[str, typer.Argument(help="Id of a job.")], url: Url = DEFAULT_URL) -> None:
    """Follow a job on a running service to its end."""
    console = _console()
    with Client(url) as client, shown(console) as shower:
        video = client.get(video_id)
        for tally in follow(client, video, since=time.monotonic()):
            shower.send(tally)
        _check(client.get(video_id))


def _make(client: Client, console: Console, folder: Path, **fields: Any) -> Tally:
    since = time.monotonic()
    video = client.submit(**fields)
    console.print(f"job [bold]{video.id}[/]: {video.frames.total} frames, seed {video.seed}")
    for warning in (video.model_extra or {}).get("warnings", ()):
        console.print(f"[yellow]{warning}[/]")
    tally, kept = Tally(video.frames.total, ()), Kept()
    try:
        with shown(console) as shower:
            for tally in keep(client, video, kept, folder=folder, since=since):
                shower.send(tally)
    except KeyboardInterrupt:
        client.cancel(video.id)
        raise
    finished = _check(client.get(video.id))
    _write(client, finished, kept, folder=folder)
    return tally


def _write(client: Client, video: Video, kept: Kept, *, folder: Path) -> None:
    """What is made of the finished job; frames and events are there already."""
    (folder / JOB).write_text(video.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "video.mp4").write_bytes(client.content(video.id))
    coarse, refined = ([decode(png) for png in kept.frames[stage]] for stage in Stage)
    told = video.model_extra or {}
    title = f"{told.get('prompt') or video.model}, {video.frames.total} frames, seed {video.seed}"
    contact_sheet(coarse, refined, title=title).save(folder / "contact-sheet.png", optimize=True)
    save_gif(refined or coarse, folder / "sequence.gif", fps=told["fps"])


def _check(video: Video) -> Video:
    if video.status is not JobStatus.COMPLETED:
        reason = f": {video.error.message}" if video.error else ""
        raise JobNotCompleted(f"job {video.id} ended as {video.status.value}{reason}")
    return video


def _summary(console: Console, tally: Tally, out: Path) -> None:
    console.print(f"[bold green]{tally.word}[/] in {tally.seconds:.1f} s ({first_frames(tally)})")
    for name in ("video.mp4", "sequence.gif", "contact-sheet.png", f"{FRAMES}/", JOB, "events.jsonl"):
        console.print(f"  {out / name}")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
