"""`gridit train`: a net of a bundle from sequences, resumable at any step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

from models.terminal import asked_to_stop, console, progress_bar

if TYPE_CHECKING:
    from models.train.recipe import Recipe

app = typer.Typer(no_args_is_help=True, help="Train the nets of a bundle.")
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
        with asked_to_stop() as asked, progress_bar(*_TRAINING) as progress:
            bar = progress.add_task(recipe.name, total=training.plan.steps, completed=training.step, loss=float("nan"))
            first, advancing = training.step, session.advance(training, data=data, threads=threads)
            for step in advancing:
                progress.update(bar, completed=step.step, loss=step.loss)
                if asked.is_set() or budget.is_spent(done=step.step - first):
                    break
            advancing.close()
    console.print(f"{session.folder}: {training.step} of {training.plan.steps} steps done")
    if bundle is not None:
        _assemble(runs, preset, bundle)


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
    console.print(f"{path}: bundle {written.spec.name}, hash {written.hash[:12]}")
