"""`gridit evaluate`: what a bundle draws, measured against real sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from models.terminal import DEMO, console, progress_bar

app = typer.Typer(no_args_is_help=True, help="Measure a bundle.")


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
    with progress_bar(MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        for name in loaded.spec.classes:
            drawing = run.sequences(loaded.spec, name, nets=nets, count=n, frames=frames)
            drawn[name] = list(progress.track(drawing, total=n, description=name))
    out.mkdir(parents=True, exist_ok=True)
    for name, sheet in run.sheets(drawn):
        (out / f"{name}.png").write_bytes(png.encode(sheet))
    with console.status("measuring"):
        report = run.judge(loaded, drawn, nets=nets)
    (out / "gate.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    console.print(figure_table(report), corruption_table(report))
    if record:
        bundles.annotate(loaded, gate=run.summary(report, sequences=n, frames=frames))
    console.print(f"{out}: gate.json and contact sheets; the gate is {'passed' if report.passed else 'NOT passed'}")
    raise typer.Exit(0 if report.passed else 1)
