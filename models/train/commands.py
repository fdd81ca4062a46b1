"""`gridit train`: a net of a bundle from sequences, resumable at any step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

from models.terminal import asked_to_stop, console, progress_bar
from models.train import options

if TYPE_CHECKING:
    from models.data.footage import Footage, Wanted
    from models.train.job import Job
    from models.train.session import Budget, Cadence
    from models.train.team import Team

app = typer.Typer(no_args_is_help=True, help="Train the nets of a bundle.")
_TRAINING = (MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"), TimeRemainingColumn())


@app.command()
def train(
    context: typer.Context,
    what: options.What,
    data: options.Data = None,
    domains: options.Domains = None,
    classes: options.Classes = "folders",
    stride: options.Stride = 1,
    clip_frames: options.ClipFrames = None,
    fit: options.Fit = "crop",
    crop: options.Crop = None,
    channels: options.Channels = None,
    window: options.Window = None,
    mirror: options.Mirror = None,
    degradation: options.Degradation = None,
    grid: options.Grid = None,
    coarse_size: options.CoarseSize = None,
    refined_size: options.RefinedSize = None,
    preset: options.Preset = None,
    patch: options.Patch = None,
    width: options.Width = None,
    depth: options.Depth = None,
    heads: options.Heads = None,
    prediction: options.Prediction = None,
    schedule: options.Schedule = None,
    learned_variance: options.LearnedVariance = None,
    init: options.Init = None,
    vae: options.VaeFrom = None,
    total_steps: options.TotalSteps = None,
    batch: options.Batch = None,
    accumulate: options.Accumulate = None,
    learning_rate: options.LearningRate = None,
    warm_up: options.WarmUp = None,
    clip: options.Clip = None,
    ema: options.Ema = None,
    prefix_share: options.PrefixShare = None,
    seed: options.Seed = None,
    precision: options.Precision = None,
    config: options.Config = None,
    name: options.Name = None,
    runs: options.Runs = Path("runs"),
    steps: options.Steps = None,
    minutes: options.Minutes = None,
    finish: options.Finish = None,
    save_every: options.SaveEvery = 200,
    sheet_every: options.SheetEvery = 1000,
    threads: options.Threads = 2,
    device: options.Device = "auto",
    bundle: options.BundleTo = None,
    license_: options.License = "unspecified",
) -> None:
    """Train one net of a bundle, or go on where its run was left. Under torchrun processes share each step's rows."""
    from models.train import job as jobs
    from models.train.session import Budget, Cadence
    from models.train.team import gathered

    if what not in jobs.KNOWN:
        raise typer.BadParameter(f"{what!r} is unknown; there are: {', '.join(jobs.KNOWN)}", param_hint="what")
    jobs.settle_torch()
    with gathered(device) as team:
        asked = jobs.asked(what, context.params, runs=runs, team=team)
        wanted = asked.wanted()
        job = asked.open(None if wanted is None else _decoded(wanted, asked.clips, team))
        if finish is not None:
            job.training.plan = job.training.plan.finish(job.training.step, within=finish)
        _advance(job, Budget(steps=steps, minutes=minutes), cadence=Cadence(save_every, sheet_every), threads=threads)
        if team.leads:
            _report(job, bundle, license_)


def _decoded(wanted: Wanted, clips: Path, team: Team) -> Footage:
    """The folder's sequences as frames; one process decodes what is not there yet, the others wait for it."""
    from models.data.footage import prepare

    if not team.leads:
        team.wait()
    preparing = prepare(wanted, clips)
    with progress_bar(MofNCompleteColumn()) as progress:
        bar = progress.add_task("decoding", total=None, visible=False)
        while True:
            try:
                one = next(preparing)
                progress.update(bar, completed=one.done, total=one.total, visible=True)
            except StopIteration as end:
                footage: Footage = end.value
                break
    if team.leads:
        team.wait()
    return footage


def _advance(job: Job, budget: Budget, *, cadence: Cadence, threads: int) -> None:
    """Step until the run or the budget ends, or somebody asks to stop."""
    team, training = job.session.team, job.training
    if team.agree(budget.is_spent(done=0)):
        return
    data = job.data()
    with asked_to_stop() as asked, progress_bar(*_TRAINING) as progress:
        steps, visible = training.plan.steps, team.leads
        bar = progress.add_task(
            training.recipe.name, total=steps, completed=training.step, loss=float("nan"), visible=visible
        )
        first, advancing = training.step, job.session.advance(training, data=data, threads=threads, cadence=cadence)
        for step in advancing:
            progress.update(bar, completed=step.step, loss=step.loss)
            if team.agree(asked.is_set() or budget.is_spent(done=step.step - first)):
                break
        advancing.close()


def _report(job: Job, bundle: Path | None, license_: str) -> None:
    training = job.training
    console.print(f"{job.session.folder}: {training.step} of {training.plan.steps} steps done")
    if bundle is not None:
        written = job.bundle(bundle, license_=license_)
        stages = " and ".join(written.spec.stages)
        console.print(f"{bundle}: bundle {written.spec.name} ({stages}), hash {written.hash[:12]}")
