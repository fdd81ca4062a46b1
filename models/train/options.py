"""The options of `gridit train`, by what they are about; None is what was not said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_DATA, _NET, _COURSE, _RUN = "Data", "Net", "Optimisation", "Run"


def _option(panel: str, help_: str, **limits: float) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=help_, rich_help_panel=panel, **limits)  # type: ignore[arg-type]
    return option


What = Annotated[str, typer.Argument(help="coarse or refine; or a recipe that ships: demo-coarse, demo-refine.")]

Data = Annotated[
    Path | None, _option(_DATA, "Folder of videos, folders of images, or volumes; subfolders of them are classes.")
]
Domains = Annotated[str | None, _option(_DATA, "Instead of --data: procedural domains, such as lava,sky.")]
Classes = Annotated[Literal["folders", "none"], _option(_DATA, "Whether subfolders are classes.")]
Stride = Annotated[int, _option(_DATA, "Every how-manieth frame is used.", min=1)]
ClipFrames = Annotated[int | None, _option(_DATA, "Cut sequences into clips of so many frames.", min=1)]
Fit = Annotated[Literal["crop", "stretch"], _option(_DATA, "How oblong frames become square.")]
Crop = Annotated[int | None, _option(_DATA, "Side in pixels of the square in the middle that is used.", min=1)]
Channels = Annotated[int | None, _option(_DATA, "1 (grey) or 3 (colour); left out: as found.", min=1, max=3)]
Window = Annotated[str | None, _option(_DATA, "Of volumes: LEVEL,WIDTH; left out: the whole range.")]
Mirror = Annotated[float | None, _option(_DATA, "Share of clips whose frames are mirrored.", min=0, max=1)]
Degradation = Annotated[
    Literal["small", "published"] | None, _option(_DATA, "Refine: what low-resolution frames look like.")
]

Grid = Annotated[int | None, _option(_NET, "K of the K x K grid.", min=2, max=8)]
CoarseSize = Annotated[int | None, _option(_NET, "Side of a coarse frame, pixels.", min=1)]
RefinedSize = Annotated[int | None, _option(_NET, "Side of a refined frame, pixels.", min=1)]
Preset = Annotated[str | None, _option(_NET, "A published size, DiT-S/2 to DiT-XL/8; left out: a small net.")]
Patch = Annotated[int | None, _option(_NET, "Side of a patch.", min=1)]
Width = Annotated[int | None, _option(_NET, "Features of a token.", min=8)]
Depth = Annotated[int | None, _option(_NET, "Blocks.", min=1)]
Heads = Annotated[int | None, _option(_NET, "Heads of each.", min=1)]
Prediction = Annotated[
    Literal["x", "residual", "epsilon", "v", "flow"] | None,
    _option(_NET, "What the net says; left out: x, and residual to refine."),
]
Schedule = Annotated[Literal["flow", "linear"] | None, _option(_NET, "How noise is mixed in; linear: DDPM's.")]
LearnedVariance = Annotated[
    bool | None, typer.Option("--learned-variance", help="It says its variance too.", rich_help_panel=_NET)
]
Init = Annotated[str | None, _option(_NET, "Weights of a DiT to start from: a path, or an id on the hub.")]
VaeFrom = Annotated[str | None, _option(_NET, "Autoencoder (diffusers' layout) whose latents it works on.")]

TotalSteps = Annotated[int | None, _option(_COURSE, "Length of the whole run.", min=1)]
Batch = Annotated[int | None, _option(_COURSE, "Rows of a step, of all processes together.", min=1)]
Accumulate = Annotated[int | None, _option(_COURSE, "Rounds in which they are worked through.", min=1)]
LearningRate = Annotated[float | None, _option(_COURSE, "The highest.", min=0)]
WarmUp = Annotated[int | None, _option(_COURSE, "Steps until it is reached.", min=0)]
Clip = Annotated[float | None, _option(_COURSE, "Largest norm of a gradient.", min=0)]
Ema = Annotated[float | None, _option(_COURSE, "Decay of the average of the weights.", min=0, max=1)]
PrefixShare = Annotated[
    float | None, _option(_COURSE, "Coarse: share of grids with given rows; 0: as published.", min=0, max=1)
]
Seed = Annotated[int | None, _option(_COURSE, "Of weights and draws.", min=0)]
Precision = Annotated[Literal["fp32", "bf16"] | None, _option(_COURSE, "Of the forward pass.")]
Config = Annotated[Path | None, _option(_COURSE, "TOML or JSON with fields of the recipe; options go before it.")]

Name = Annotated[str | None, _option(_RUN, "Of run and bundle; left out: the data's. Alone: go on with that run.")]
Runs = Annotated[Path, _option(_RUN, "Where runs are kept, each in a folder of its own.")]
Steps = Annotated[int | None, _option(_RUN, "Stop after so many more steps.", min=0)]
Minutes = Annotated[float | None, _option(_RUN, "Stop after so long.", min=0)]
Finish = Annotated[int | None, _option(_RUN, "Let the learning rate fall to zero over so many steps, and end.", min=1)]
SaveEvery = Annotated[int, _option(_RUN, "Steps between two saves.", min=1)]
SheetEvery = Annotated[int, _option(_RUN, "Steps between two sheets of samples.", min=1)]
Threads = Annotated[int, _option(_RUN, "Threads; they change no bit of the result.", min=1)]
Device = Annotated[Literal["auto", "cpu", "cuda"], _option(_RUN, "auto: a GPU where there is one.")]
BundleTo = Annotated[Path | None, _option(_RUN, "When done, write the run's bundle there (--steps 0: at once).")]
License = Annotated[str, typer.Option("--license", help="Of the bundle.", rich_help_panel=_RUN)]
