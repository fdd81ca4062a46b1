"""Frames of videos and folders of images, one after another, as they are stored: no resizing, no window."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.data.errors import BadData
from models.data.listing import Source

Pixels = NDArray[Any]
"""(H, W, C), C 1 or 3; uint8 or uint16."""

_ONE_SIZE = "split it where the size changes, or scale its frames to one size"
_CONVERT = "remove it, or convert it to a format that is read here"
_MODES = {"1": "L", "L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


def video(path: Path, *, stride: int = 1) -> Iterator[Pixels]:
    """Every `stride`-th frame of the first video stream; grey streams have one channel."""
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise BadData(path, found="no video stream", expected="a video", remedy=_CONVERT)
            for frame in islice(_of_one_size(path, file.decode(video=0)), 0, None, stride):
                pixels = frame.to_ndarray(format=_format(frame.format.name))
                yield pixels[..., None] if pixels.ndim == 2 else pixels
    except av.FFmpegError as error:
        found = f"data that does not decode ({error.strerror})"
        raise BadData(path, found=found, expected="a video", remedy=_CONVERT) from error


def images(source: Source, *, stride: int = 1) -> Iterator[Pixels]:
    """Every `stride`-th image of a folder; all are of one size."""
    size: tuple[int, ...] | None = None
    for file in source.files[::stride]:
        pixels = image(file)
        size = size or pixels.shape
        if pixels.shape != size:
            raise BadData(file, found=_sized(pixels.shape), expected=_sized(size), remedy=_ONE_SIZE)
        yield pixels


def image(file: Path) -> Pixels:
    """One image: colour as RGB, grey as one channel of 8 or 16 bits; transparency is dropped."""
    try:
        with Image.open(file) as picture:
            if picture.mode.startswith("I"):
                return _deep(file, np.asarray(picture))
            if picture.mode not in _MODES:
                raise BadData(file, found=f"an image of mode {picture.mode}", expected="RGB or grey", remedy=_CONVERT)
            pixels = np.asarray(picture.convert(_MODES[picture.mode]))
    except (UnidentifiedImageError, OSError) as error:
        found = f"data that does not decode ({error})"
        raise BadData(file, found=found, expected="an image", remedy=_CONVERT) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _of_one_size(path: Path, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    first: tuple[int, int] | None = None
    for index, frame in enumerate(frames):
        size = (frame.height, frame.width)
        first = first or size
        if size != first:
            found = f"{_sized(size)} from frame {index} on"
            raise BadData(path, found=found, expected=f"{_sized(first)} as in its first frame", remedy=_ONE_SIZE)
        yield frame


def _format(name: str) -> str:
    if not name.startswith("gray"):
        return "rgb24"
    return "gray" if name == "gray" else "gray16le"


def _deep(file: Path, values: NDArray[Any]) -> Pixels:
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        found = f"values {values.min()} to {values.max()}"
        raise BadData(file, found=found, expected="0 to 65535", remedy="store it as a NumPy stack (.npy)")
    return values.astype(np.uint16)[..., None]


def _sized(shape: tuple[int, ...]) -> str:
    channels = f" of {shape[2]} channels" if len(shape) > 2 else ""
    return f"{shape[1]} x {shape[0]} pixels{channels}"
