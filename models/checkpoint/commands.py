"""`gridit import` and `gridit inspect`: published weights made a bundle, and what is in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from models.terminal import console

app = typer.Typer(no_args_is_help=True, help="Import published weights, and look into bundles.")

SOURCE = "A file, a folder, or an id on the hub: OWNER/NAME, with @REVISION and :FILE where wanted."


@app.command(name="import")
def import_(
    source: Annotated[str, typer.Argument(help=f"The net that draws grids. {SOURCE}")],
    to: Annotated[Path, typer.Option(help="The bundle's folder, which must not exist yet.")],
    refine: Annotated[str | None, typer.Option(help="The net that refines frames, likewise.")] = None,
    vae: Annotated[str | None, typer.Option(help="The autoencoder, where the nets work on latents.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of SOURCE.")] = None,
    file: Annotated[str | None, typer.Option(help="Which of SOURCE's files.")] = None,
    name: Annotated[str | None, typer.Option(help="What requests call it; left out: after SOURCE.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File with a name for each label: lines, or JSON.")] = None,
    prediction: Annotated[Literal["epsilon", "v", "x", "flow"], typer.Option(help="What the nets answer.")] = "epsilon",
    schedule: Annotated[
        Literal["linear", "flow"] | None, typer.Option(help="Left out: flow for flow, else linear.")
    ] = None,
    grid: Annotated[int | None, typer.Option(min=2, max=8, help="Frames side by side; left out: 4.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Of the attention, where no preset tells.")] = None,
    overlap_rows: Annotated[
        int | None, typer.Option(min=1, max=7, help="Rows that a grid shares with the one before; left out: 3.")
    ] = None,
    latent_scale: Annotated[
        float | None, typer.Option(min=0, help="That the nets were trained with; left out: 0.18215.")
    ] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Left out: as the model cards say.")] = None,
    dtype: Annotated[
        Literal["stored", "fp32", "fp16", "bf16"], typer.Option(help="To keep the weights in; stored: as they are.")
    ] = "stored",
) -> None:
    """Make a bundle from published weights: a torch pickle, safetensors, or a folder by diffusers."""
    from models.checkpoint import assembly, importing, inspection
    from models.checkpoint.assembly import Wishes
    from models.checkpoint.importing import Sources
    from models.checkpoint.layout import Part
    from models.checkpoint.places import Wanted
    from models.engine import Precision
    from models.spec import Prediction, ScheduleName

    sources = Sources(
        coarse=Wanted(source, revision=revision, file=file),
        refine=Wanted(refine) if refine else None,
        autoencoder=Wanted(vae, Part.AUTOENCODER) if vae else None,
    )
    wishes = Wishes(
        name=name,
        license=license_,
        grid=grid,
        heads=heads,
        overlap_rows=overlap_rows,
        prediction=Prediction(prediction),
        schedule=ScheduleName(schedule or ("flow" if prediction == "flow" else "linear")),
        latent_scale=latent_scale,
        classes=classes,
    )
    stored = None if dtype == "stored" else Precision(dtype).dtype
    with console.status(f"importing {source}"):
        made = importing.import_bundle(sources, to, wishes=wishes, dtype=stored)
    Console().print(*inspection.show_bundle(made))
    if assembly.UNKNOWN_LICENSE in made.spec.license:
        console.print("Nothing says under which licence these weights may be used: ask their author, and --license.")


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="DIR", help=f"A bundle; or a checkpoint before import. {SOURCE}")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Check a bundle, and print what is in it."""
    from models import bundle as bundles
    from models.checkpoint import inspection, parts
    from models.checkpoint.hub import Hub
    from models.checkpoint.places import Wanted

    out = Console()
    if (Path(source) / bundles.FILE).is_file():
        bundle = bundles.load(Path(source))
        facts, shown = inspection.bundle_facts(bundle), inspection.show_bundle(bundle)
    else:
        net = parts.find_net(Wanted(source), hub=Hub())
        facts, shown = inspection.net_facts(net), inspection.show_net(net)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        out.print(*shown)
