"""A user's sequences as frames of one kind: what all of them have in common is found first, then each is decoded.

`inspect` looks at the first frame of each (and, where volumes need it, at all their values) and settles the number of
channels, the depth and the window; `decode` then yields a sequence's frames as squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.data import pictures, volumes
from models.data.errors import BadData
from models.data.framing import Fit, cropped, deepened, with_channels
from models.data.listing import Classes, Kind, Source
from models.data.pictures import Pixels
from models.data.volumes import Window


@dataclass(frozen=True, slots=True)
class Reading:
    """How a user wants the sequences of a folder read."""

    classes: Classes = Classes.FOLDERS
    stride: int = 1
    """Every how-manieth frame is kept."""
    clip_frames: int | None = None
    """Sequences are cut into clips of so many frames; None: each is one clip."""
    fit: Fit = Fit.CROP
    crop: int | None = None
    """Side of the square in the middle that is kept, before it is resized; None: the largest."""
    channels: int | None = None
    """1 (grey) or 3 (colour); None: what the sequences have."""
    window: Window | None = None
    """Of volumes; None: the whole range."""


@dataclass(frozen=True, slots=True)
class Kinship:
    """What all sequences of a folder have in common once they are decoded."""

    channels: int
    dtype: np.dtype[Any]
    """uint8 or uint16."""
    window: Window | None
    """The one that volumes are seen through, where they need one."""


def inspect(sources: Sequence[Source], reading: Reading) -> Kinship:
    """Settle channels, depth and window; `BadData` names the first sequence that does not fit."""
    firsts = [(source, _first(source, reading)) for source in sources]
    window = reading.window or _whole_range(sources, firsts)
    channels = reading.channels or firsts[0][1].shape[2]
    for source, pixels in firsts:
        if reading.channels is None and pixels.shape[2] != channels:
            found, expected = f"{pixels.shape[2]} channels", f"{channels} as in {firsts[0][0].path.name}"
            remedy = "make all of one kind with --channels 1 (grey) or --channels 3 (colour)"
            raise BadData(source.path, found=found, expected=expected, remedy=remedy)
    kinds = {source.kind for source in sources}
    if reading.window and Kind.VOLUME not in kinds:
        found, remedy = "a window and no volume", "leave --window out"
        raise BadData(sources[0].path.parent, found=found, expected="volumes", remedy=remedy)
    deep = window is not None or any(pixels.dtype != np.uint8 for _, pixels in firsts)
    return Kinship(channels, np.dtype(np.uint16 if deep else np.uint8), window)


def decode(source: Source, reading: Reading, *, kinship: Kinship) -> Iterator[Pixels]:
    """Every `stride`-th frame, (H, W, channels) of the common type; square unless it is to be stretched."""
    for pixels in _raw(source, reading.stride):
        if source.kind is Kind.VOLUME and kinship.window:
            pixels = kinship.window.apply(pixels)
        if reading.crop and reading.crop > min(pixels.shape[:2]):
            found, expected = f"frames of {pixels.shape[1]} x {pixels.shape[0]} pixels", f"at least {reading.crop}"
            raise BadData(source.path, found=found, expected=expected, remedy="take a smaller --crop")
        square = cropped(pixels, fit=reading.fit, crop=reading.crop)
        yield with_channels(deepened(square, kinship.dtype), kinship.channels)


def _raw(source: Source, stride: int) -> Iterator[Any]:
    if source.kind is Kind.VIDEO:
        return pictures.video(source.path, stride=stride)
    if source.kind is Kind.IMAGES:
        return pictures.images(source, stride=stride)
    return iter(volumes.read(source.path)[::stride])


def _first(source: Source, reading: Reading) -> Any:
    first = next(iter(_raw(source, reading.stride)), None)
    if first is None:
        raise BadData(source.path, found="no frame", expected="a sequence", remedy="remove it")
    return first


def _whole_range(sources: Sequence[Source], firsts: Sequence[tuple[Source, Any]]) -> Window | None:
    """From the least to the greatest value of all volumes, if one is of another type than unsigned 8 or 16 bits."""
    if not any(volumes.needs_window(pixels) for source, pixels in firsts if source.kind is Kind.VOLUME):
        return None
    lows, highs = zip(*(_extent(source) for source in sources if source.kind is Kind.VOLUME), strict=True)
    return Window(min(lows), max(highs))


def _extent(source: Source) -> tuple[float, float]:
    values = volumes.read(source.path)
    return float(values.min()), float(values.max())
