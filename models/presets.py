"""The published sizes of DiT (Peebles & Xie 2023, table 1) as specs of nets for grids or for frames.

A preset fixes width, depth, heads and patch; everything else is the caller's. Names are the published ones: DiT-XL/2 is
the largest with patches of 2 x 2. Nothing here builds a net or looks at weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.spec import NetSpec, Prediction, ScheduleName, Stage

PATCHES = (2, 4, 8)

_NO_FILE_YET = "0" * 64


@dataclass(frozen=True, slots=True)
class Size:
    """The width of a DiT's tokens, its number of blocks, and the heads of each."""

    width: int
    depth: int
    heads: int


SIZES = {"S": Size(384, 12, 6), "B": Size(768, 12, 12), "L": Size(1024, 24, 16), "XL": Size(1152, 28, 16)}

NAMES = tuple(f"DiT-{size}/{patch}" for size in SIZES for patch in PATCHES)


class UnknownPreset(ValueError):
    """There is no preset of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"preset {name!r} is unknown: choose one of {', '.join(NAMES)}")


class Misfit(ValueError):
    """Frames of that size are no whole number of patches."""

    def __init__(self, frame_size: int, step: int) -> None:
        near = max(step, round(frame_size / step) * step)
        super().__init__(f"frame size {frame_size} is not a multiple of {step}, a patch's side in pixels: take {near}")


def net_spec(
    name: str,
    *,
    stage: Stage,
    frame_size: int,
    grid: int = 4,
    channels: int = 3,
    downsample: int = 1,
    classes: int = 0,
    learned_variance: bool = False,
    prediction: Prediction = Prediction.EPSILON,
    schedule: ScheduleName = ScheduleName.LINEAR,
) -> NetSpec:
    """The net that draws grid x grid frames of `frame_size` pixels (coarse), or one frame (refine).

    `channels` are those that it draws: a frame's, or with `downsample` > 1 those of its latents. Its digest is that of
    no file yet. Errors: `UnknownPreset`, `Misfit`.
    """
    size, patch = parse(name)
    if frame_size % (patch * downsample) or frame_size < 1:
        raise Misfit(frame_size, patch * downsample)
    coarse = stage is Stage.COARSE
    return NetSpec(
        file=f"{stage}.safetensors",
        sha256=_NO_FILE_YET,
        input_size=frame_size // downsample * (grid if coarse else 1),
        patch=patch,
        in_channels=channels if coarse else 2 * channels,
        out_channels=2 * channels if learned_variance else channels,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        classes=classes,
        prediction=prediction,
        learned_variance=learned_variance,
        schedule=schedule,
        time_scale=time_scale(schedule),
    )


def parse(name: str) -> tuple[Size, int]:
    """A preset's size and patch, by its name in any case."""
    known = {preset.lower(): preset for preset in NAMES}
    if name.lower() not in known:
        raise UnknownPreset(name)
    size, patch = known[name.lower()].removeprefix("DiT-").split("/")
    return SIZES[size], int(patch)


def time_scale(schedule: ScheduleName) -> float:
    """What a schedule's times are multiplied by before a net sees them: all published nets see 0 to 1000."""
    return 1.0 if schedule is ScheduleName.LINEAR else 1000.0
