"""The options of `gridit evaluate`: their types and what `--help` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_DRAWN, _REAL, _NETS = "What is drawn", "Real sequences", "FID and FVD"
_PROGRAM = "A TorchScript file is a program, and it is run: name only one that you trust."

Bundle = Annotated[Path, typer.Argument(help="A bundle's directory; left out: the one that ships.")]
Measures = Annotated[
    Literal["gate", "curves", "all"],
    typer.Option(help="The gate, or seams and drift of long sequences as plots (extra: evaluate), or both."),
]
Out = Annotated[Path, typer.Option(help="Folder for reports, contact sheets and plots.")]
Record = Annotated[bool, typer.Option("--record", help="Write the gate's figures into the bundle too.")]

Count = Annotated[
    int | None,
    typer.Option("--n", min=2, help="Sequences of each class; gate: 32, curves: 8.", rich_help_panel=_DRAWN),
]
Frames = Annotated[
    int | None, typer.Option(min=17, help="Frames of each; gate: 64, curves: 256.", rich_help_panel=_DRAWN)
]
Classes = Annotated[
    list[str] | None, typer.Option("--class", help="Only this class; may be repeated.", rich_help_panel=_DRAWN)
]
Modes = Annotated[Literal["sound", "official"], typer.Option(rich_help_panel=_DRAWN)]
Sampler = Annotated[str | None, typer.Option(help="A sampler of the bundle.", rich_help_panel=_DRAWN)]
Spacing = Annotated[str | None, typer.Option(help="linear, trailing or log_snr.", rich_help_panel=_DRAWN)]
Cache = Annotated[
    int | None, typer.Option(min=1, help="Compute deep features at every n-th step only.", rich_help_panel=_DRAWN)
]
Steps = Annotated[int | None, typer.Option(min=1, rich_help_panel=_DRAWN)]
Guidance = Annotated[float | None, typer.Option(min=1, rich_help_panel=_DRAWN)]

Folder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of videos, volumes or folders of frames, in subfolders by class; left out: procedural domains.",
        rich_help_panel=_REAL,
    ),
]
ClassMap = Annotated[
    list[str] | None,
    typer.Option(
        help="CLASS=NAME, the subfolder or domain that shows a class, where names differ; may be repeated. "
        "What a bundle without classes draws is called all.",
        rich_help_panel=_REAL,
    ),
]
Stride = Annotated[int, typer.Option(min=1, help="Every how-manieth frame is used.", rich_help_panel=_REAL)]
Crop = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Side in pixels of the square in the middle that is used; left out: the largest.",
        rich_help_panel=_REAL,
    ),
]
Fit = Annotated[
    Literal["crop", "stretch"], typer.Option(help="How oblong frames become square.", rich_help_panel=_REAL)
]
Window = Annotated[
    str | None, typer.Option(help="Of volumes: LEVEL,WIDTH; left out: the whole range.", rich_help_panel=_REAL)
]

FidNet = Annotated[
    Path | None,
    typer.Option(help=f"TorchScript: images (n, 3, H, W) to features (n, D). {_PROGRAM}", rich_help_panel=_NETS),
]
FvdNet = Annotated[
    Path | None,
    typer.Option(help=f"TorchScript: clips (n, 3, T, H, W) to features (n, D). {_PROGRAM}", rich_help_panel=_NETS),
]
PixelValues = Annotated[
    Literal["bytes", "unit", "signed"],
    typer.Option(help="Pixels as the net expects them: uint8, 0..1 or -1..1.", rich_help_panel=_NETS),
]
FidSize = Annotated[
    int | None,
    typer.Option(min=1, help="Side to which frames are scaled; left out: the net does it.", rich_help_panel=_NETS),
]
FvdSize = Annotated[int, typer.Option(min=1, help="Side to which frames are scaled.", rich_help_panel=_NETS)]
ClipFrames = Annotated[int, typer.Option(min=1, help="Frames of a clip.", rich_help_panel=_NETS)]
